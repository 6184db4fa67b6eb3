//! One entry of the event log, and its bytes.
//!
//! Invariant: an entry that decodes was written whole by [`Entry::encode`]: its checksum is over everything else.

use std::time::Duration;

use crate::{fnv::fnv, service::NAME_MAX, supervise::Requester};

/// What is kept of the words; the rest of a longer text is cut off.
const WORDS_MAX: usize = 600;
/// Checksum, sequence, boottime, realtime: 8 bytes each; uid and pid: 4 each; length of the words: 2; what happened,
/// whether it was asked for, lengths of name and state: 1 each.
const FIXED: usize = 4 * 8 + 2 * 4 + 2 + 4;
/// No state has a longer name.
const STATE_MAX: usize = 24;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A service came into a state.
    Became,
    /// Somebody asked for something.
    Asked,
    /// A timer went off.
    Timer,
    /// Somebody connected to a socket.
    Socket,
    /// A service waited too much for a resource.
    Pressure,
    /// motherd itself: started, relaunched, ending the machine.
    Manager,
}

/// By their bytes, which are never given to anything else.
const WHATS: [(u8, What); 6] = [
    (1, What::Became),
    (2, What::Asked),
    (3, What::Timer),
    (4, What::Socket),
    (5, What::Manager),
    (6, What::Pressure),
];

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From 1, over the whole life of initldr; each entry has one more than the one before.
    pub sequence: u64,
    /// CLOCK_BOOTTIME.
    pub at: Duration,
    /// CLOCK_REALTIME, since 1970.
    pub realtime: Duration,
    /// Its name; empty where it is about none.
    pub service: String,
    /// See there.
    pub what: What,
    /// The state's name, as `list` shows it; empty where it is about none.
    pub state: String,
    /// Why, for people.
    pub words: String,
    /// Who asked, where somebody did.
    pub request: Option<Requester>,
}

impl Entry {
    /// Its bytes, with this sequence number.
    pub(super) fn encode(&self, sequence: u64) -> Vec<u8> {
        let what = WHATS.iter().find(|(_, what)| *what == self.what).map_or(0, |(byte, _)| *byte);
        let name = cut(&self.service, NAME_MAX);
        let state = cut(&self.state, STATE_MAX);
        let words = cut(&self.words, WORDS_MAX);
        let who = self.request.unwrap_or(Requester { uid: 0, pid: 0 });
        let mut bytes = vec![0; 8];
        bytes.extend(sequence.to_le_bytes());
        bytes.extend(nanoseconds(self.at).to_le_bytes());
        bytes.extend(nanoseconds(self.realtime).to_le_bytes());
        bytes.extend(who.uid.to_le_bytes());
        bytes.extend(who.pid.to_le_bytes());
        bytes.extend(u16::try_from(words.len()).unwrap_or_default().to_le_bytes());
        bytes.extend([what, u8::from(self.request.is_some())]);
        bytes.extend([name, state].map(|text| u8::try_from(text.len()).unwrap_or_default()));
        bytes.extend(name.as_bytes());
        bytes.extend(state.as_bytes());
        bytes.extend(words.as_bytes());
        let sum = fnv(&bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// How many bytes an entry has that begins so.
    pub(super) fn encoded_len(bytes: &[u8]) -> Option<usize> {
        let fixed = bytes.get(..FIXED)?;
        let words = usize::from(u16::from_le_bytes([fixed[40], fixed[41]]));
        let [name, state] = [fixed[44], fixed[45]].map(usize::from);
        let sound = words <= WORDS_MAX && name <= NAME_MAX && state <= STATE_MAX;
        sound.then_some(FIXED + name + state + words)
    }

    /// `None`: these are not the bytes of an entry.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..Self::encoded_len(bytes)?)?;
        let (sum, rest) = bytes.split_first_chunk()?;
        if u64::from_le_bytes(*sum) != fnv(rest) {
            return None;
        }
        let (sequence, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (realtime, rest) = rest.split_first_chunk()?;
        let (uid, rest) = rest.split_first_chunk()?;
        let (pid, rest) = rest.split_first_chunk()?;
        let (_, rest) = rest.split_first_chunk::<2>()?;
        let ([what, asked, name, state], rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(usize::from(*name))?;
        let (state, words) = rest.split_at_checked(usize::from(*state))?;
        let text = |bytes: &[u8]| str::from_utf8(bytes).ok().map(str::to_owned);
        let request =
            (*asked == 1).then(|| Requester { uid: u32::from_le_bytes(*uid), pid: u32::from_le_bytes(*pid) });
        Some(Self {
            sequence: u64::from_le_bytes(*sequence),
            at: Duration::from_nanos(u64::from_le_bytes(*at)),
            realtime: Duration::from_nanos(u64::from_le_bytes(*realtime)),
            service: text(name)?,
            what: WHATS.iter().find(|(byte, _)| byte == what)?.1,
            state: text(state)?,
            words: text(words)?,
            request,
        })
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// At most `max` bytes, cut between characters.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
