//! The reply to `Status`, taken service by service while it comes.
//!
//! A reply begins as ours does, and then each service is read out of memory, which takes a third of the time that it takes
//! byte by byte from a stream. What comes after them, and a reply that begins otherwise, is read as any message.

use std::{
    fmt,
    io::{self, BufRead, Read},
};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{RequestError, ServiceStatus};
use crate::control::protocol::STATUS_BEGINS;

/// Reads one reply. `Some`: it is an error.
pub(super) fn read(
    reader: &mut impl BufRead,
    mut take: impl FnMut(ServiceStatus),
) -> Result<Option<RequestError>, serde_json::Error> {
    let (begins, text) = in_memory(reader, &mut take).map_err(serde_json::Error::io)?;
    let rest = begins.chain(&text[..]).chain(reader);
    serde_json::Deserializer::from_reader(rest).deserialize_map(Message(&mut take))
}

/// Takes the services that come first and are whole. Returns what is to be read of the reply all the same: how it begins, with
/// none of these, and what was read beyond them.
fn in_memory(
    reader: &mut impl BufRead,
    take: &mut impl FnMut(ServiceStatus),
) -> io::Result<(&'static [u8], Vec<u8>)> {
    let mut text = Text::default();
    while text.whole.len() < STATUS_BEGINS.len() && text.read_more(reader)? {}
    if !text.whole.as_bytes().starts_with(STATUS_BEGINS) {
        return Ok((b"", text.into_bytes(0)));
    }
    let (mut at, mut first) = (STATUS_BEGINS.len(), true);
    loop {
        let element = match (text.whole.as_bytes().get(at), first) {
            (Some(b','), false) => at + 1,
            (Some(_), false) => break,
            (Some(_), true) | (None, _) => at,
        };
        // A comma before the end stays for who reads the rest: it is wrong there.
        if !first && text.whole.as_bytes().get(element) == Some(&b']') {
            break;
        }
        let left = text.whole.get(element..).unwrap_or_default();
        let mut services = serde_json::Deserializer::from_str(left).into_iter::<ServiceStatus>();
        match services.next() {
            Some(Ok(service)) => {
                (at, first) = (element + services.byte_offset(), false);
                take(service);
            }
            Some(Err(error)) if !error.is_eof() => break,
            // Not all of it is there yet.
            Some(Err(_)) | None => {
                text.whole.drain(..at);
                at = 0;
                if !text.read_more(reader)? {
                    break;
                }
            }
        }
    }
    let mut rest = text.into_bytes(at);
    // The next one is the first of what is left.
    if !first && rest.first() == Some(&b',') && rest.get(1) != Some(&b']') {
        rest.remove(0);
    }
    Ok((STATUS_BEGINS, rest))
}

/// What was read, looked through once for what is no text.
#[derive(Default)]
struct Text {
    whole: String,
    /// The beginning of a character, or something that is none, and what came after it.
    rest: Vec<u8>,
}

impl Text {
    /// Whether there was more.
    fn read_more(&mut self, reader: &mut impl BufRead) -> io::Result<bool> {
        let part = loop {
            match reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                part => break part?,
            }
        };
        let size = part.len();
        self.rest.extend_from_slice(part);
        reader.consume(size);
        let whole = match str::from_utf8(&self.rest) {
            Ok(text) => text,
            Err(error) => str::from_utf8(&self.rest[..error.valid_up_to()]).unwrap_or_default(),
        };
        self.whole.push_str(whole);
        let end = whole.len();
        self.rest.drain(..end);
        Ok(size > 0)
    }

    fn into_bytes(self, from: usize) -> Vec<u8> {
        let mut bytes = self.whole.into_bytes();
        bytes.drain(..from);
        bytes.extend(self.rest);
        bytes
    }
}

/// `{"parameters": .., "error": ..}`
struct Message<'a, F>(&'a mut F);

impl<'de, F: FnMut(ServiceStatus)> Visitor<'de> for Message<'_, F> {
    type Value = Option<RequestError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reply")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut error, mut services, mut others) = (None::<String>, false, Value::Null);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "error" => error = map.next_value()?,
                "parameters" => (services, others) = map.next_value_seed(Parameters(&mut *self.0))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match error {
            Some(name) => RequestError::decode(&name, others).map(Some).map_err(A::Error::custom),
            None if services => Ok(None),
            None => Err(A::Error::missing_field("services")),
        }
    }
}

/// `{"services": [..], ..}`: whether there are any, and everything else.
struct Parameters<'a, F>(&'a mut F);

impl<'de, F: FnMut(ServiceStatus)> DeserializeSeed<'de> for Parameters<'_, F> {
    type Value = (bool, Value);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(ServiceStatus)> Visitor<'de> for Parameters<'_, F> {
    type Value = (bool, Value);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the parameters of a reply")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok((false, Value::Null))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut services, mut others) = (false, Map::new());
        while let Some(key) = map.next_key::<String>()? {
            if key == "services" {
                map.next_value_seed(Services(&mut *self.0))?;
                services = true;
            } else {
                let value = map.next_value()?;
                others.insert(key, value);
            }
        }
        Ok((services, Value::Object(others)))
    }
}

/// `[..]`
struct Services<'a, F>(&'a mut F);

impl<'de, F: FnMut(ServiceStatus)> DeserializeSeed<'de> for Services<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(ServiceStatus)> Visitor<'de> for Services<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of services")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(service) = seq.next_element()? {
            (self.0)(service);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{
        Reply,
        samples::{stopped, web},
    };

    type Taken = (Vec<ServiceStatus>, Result<Option<RequestError>, serde_json::Error>);

    /// Of so many bytes at a time.
    fn taken_by(text: &[u8], part: usize) -> Taken {
        let mut taken = Vec::new();
        let mut reader = std::io::BufReader::with_capacity(part, text);
        let result = read(&mut reader, |service| taken.push(service));
        (taken, result)
    }

    fn taken(text: &[u8]) -> Taken {
        taken_by(text, 7)
    }

    #[test]
    fn services_are_handed_over_one_by_one() {
        for services in [vec![], vec![web()], vec![web(), stopped()]] {
            let mut text = Reply::Status(services.clone()).to_text();
            // The end of the message, and what a later version adds.
            text.push(0);
            let (found, error) = taken(&text);
            assert_eq!((found, error.unwrap()), (services, None));
        }
        let later = br#"{"later": [1], "parameters": {"later": {"a": 1}, "services": [], "version": 2}}"#;
        assert!(matches!(taken(later).1, Ok(None)));
    }

    #[test]
    fn one_that_does_not_end_hands_over_what_came_and_is_an_error() {
        let text = Reply::Status(vec![web(), stopped()]).to_text();
        let (found, error) = taken(&text[..text.len() - 9]);
        assert_eq!(found, [web(), stopped()]);
        assert!(error.unwrap_err().is_eof());
    }

    #[test]
    fn a_reply_is_the_same_in_whatever_parts_it_comes_and_however_it_is_written() {
        let services = vec![web(), stopped(), web()];
        let text = String::from_utf8(Reply::Status(services.clone()).to_text()).unwrap();
        let spaced = text.replacen("\"services\":[", "\"services\": [", 1);
        assert!(text.as_bytes().starts_with(STATUS_BEGINS) && !spaced.as_bytes().starts_with(STATUS_BEGINS));
        for text in [&text, &spaced] {
            for part in
                [1, 2, STATUS_BEGINS.len(), STATUS_BEGINS.len() + 1, text.len() / 2, text.len(), 1 << 16]
            {
                let (found, error) = taken_by(text.as_bytes(), part);
                assert_eq!((found, error.unwrap()), (services.clone(), None), "{part} bytes at a time");
            }
        }
    }

    #[test]
    fn nothing_is_waited_for_that_comes_after_the_reply() {
        /// The other side stays, and says nothing more.
        struct Silent;
        impl Read for Silent {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("more was asked for than the reply has");
            }
        }
        let text = Reply::Status(vec![web(), stopped()]).to_text();
        let mut reader = io::BufReader::with_capacity(text.len(), text.chain(Silent));
        let mut count = 0;
        assert!(matches!(read(&mut reader, |_| count += 1), Ok(None)));
        assert_eq!(count, 2);
    }

    #[test]
    fn an_error_is_one_wherever_its_name_stands() {
        let error = RequestError::NoSuchService { service: "wbe".into(), near: Some("web".into()) };
        let text = Reply::Error(error.clone()).to_text();
        assert_eq!(taken(&text).1.unwrap(), Some(error.clone()));
        let name = "io.altimatos.MotherD.NoSuchService";
        let turned =
            format!("{{\"parameters\":{{\"service\":\"wbe\",\"near\":\"web\"}},\"error\":\"{name}\"}}");
        assert_eq!(taken(turned.as_bytes()).1.unwrap(), Some(error));
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for text in ["", "[]", "{}", "{\"parameters\":{}}", "{\"parameters\":{\"services\":[7]}}", "nonsense"]
        {
            assert!(taken(text.as_bytes()).1.is_err(), "{text}");
        }
        let good = String::from_utf8(Reply::Status(vec![web(), stopped()]).to_text()).unwrap();
        for (from, to) in [
            ("}],\"version\"", "},],\"version\""),
            ("\"services\":[", "\"services\":[,"),
            ("}],\"version\"", "},7],\"version\""),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(taken(bad.as_bytes()).1.is_err(), "{to}");
        }
    }
}
