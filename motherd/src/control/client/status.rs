//! The reply to `Status`, taken service by service while it comes.

use std::{fmt, io::BufRead};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{RequestError, ServiceStatus};

/// Reads one reply. `Some`: it is an error.
pub(super) fn read(
    reader: &mut impl BufRead,
    mut take: impl FnMut(ServiceStatus),
) -> Result<Option<RequestError>, serde_json::Error> {
    serde_json::Deserializer::from_reader(reader).deserialize_map(Message(&mut take))
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

    fn taken(text: &[u8]) -> (Vec<ServiceStatus>, Result<Option<RequestError>, serde_json::Error>) {
        let mut taken = Vec::new();
        // Of few bytes at a time.
        let mut reader = std::io::BufReader::with_capacity(7, text);
        let result = read(&mut reader, |service| taken.push(service));
        (taken, result)
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
    }
}
