//! Names that come by the hundred in a long reply and are nearly always ones that this program knows: read without a copy of each.

use std::{borrow::Cow, fmt};

use sandbox::{
    attest::{NAMESPACE_KINDS, capability_names},
    cgroup::NOT_ENABLED,
    survey::figure_files,
};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
};

/// The names of a capability set, which come in the order of their numbers.
pub(super) fn capabilities<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Cow<'static, str>>, D::Error> {
    deserializer.deserialize_seq(Set)
}

/// The name of one kind of namespaces.
pub(super) fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'static, str>, D::Error> {
    Name(&mut NAMESPACE_KINDS.iter().copied()).deserialize(deserializer)
}

/// The name of a file that has no figure.
pub(super) fn file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'static, str>, D::Error> {
    Name(&mut figure_files()).deserialize(deserializer)
}

/// Why there is none.
pub(super) fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'static, str>, D::Error> {
    Name(&mut NOT_ENABLED.into_iter()).deserialize(deserializer)
}

struct Set;

impl<'de> Visitor<'de> for Set {
    type Value = Vec<Cow<'static, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names of capabilities")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
        let mut set = Vec::new();
        let mut known = capability_names().iter().map(String::as_str);
        while let Some(name) = names.next_element_seed(Name(&mut known))? {
            if set.is_empty() {
                // It has a few, or nearly all.
                set.reserve(41);
            }
            set.push(name);
        }
        Ok(set)
    }
}

/// One name, most likely one of the known ones; those before it are not looked at again.
struct Name<'a, I>(&'a mut I);

impl<'de, I: Iterator<Item = &'static str>> DeserializeSeed<'de> for Name<'_, I> {
    type Value = Cow<'static, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<I: Iterator<Item = &'static str>> Visitor<'_> for Name<'_, I> {
    type Value = Cow<'static, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        let known = self.0.find(|known| *known == name);
        Ok(known.map_or_else(|| name.to_owned().into(), Cow::Borrowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Cow<'static, str>> {
        capabilities(&mut serde_json::Deserializer::from_str(text)).unwrap()
    }

    #[test]
    fn names_are_read_as_they_are_and_known_ones_are_not_copied() {
        let all: Vec<&str> = capability_names().iter().map(String::as_str).collect();
        let set = read(&serde_json::to_string(&all).unwrap());
        assert_eq!(set, all);
        assert!(set.iter().all(|name| matches!(name, Cow::Borrowed(_))));
    }

    #[test]
    fn an_unknown_name_and_one_out_of_order_are_names_too() {
        let names = ["CAP_CHOWN", "CAP_OF_TOMORROW", "CAP_KILL", "CAP_CHOWN"];
        assert_eq!(read(&serde_json::to_string(&names).unwrap()), names);
        assert_eq!(read("[]"), Vec::<Cow<'_, str>>::new());
        assert!(capabilities(&mut serde_json::Deserializer::from_str("[1]")).is_err());
    }

    #[test]
    fn a_kind_that_this_program_does_not_know_is_one_all_the_same() {
        let kind = |text| kind(&mut serde_json::Deserializer::from_str(text)).unwrap();
        assert!(matches!(kind("\"time\""), Cow::Borrowed("time")));
        let file = file(&mut serde_json::Deserializer::from_str("\"memory.peak\"")).unwrap();
        assert!(matches!(file, Cow::Borrowed("memory.peak")));
        assert_eq!(kind("\"of tomorrow\""), "of tomorrow");
    }
}
