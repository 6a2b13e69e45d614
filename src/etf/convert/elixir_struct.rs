//! Structs of Elixir that no Rust type is written for.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::error::{ConvertError, Step};
use super::text::{Atom, atom};
use super::{MODULE_FIELD, MODULE_PREFIX};
use crate::etf::OwnedTerm;

/// A struct of Elixir without a Rust type for it: its module, and the values of its fields.
///
/// For structs of which a few fields matter, or of modules that are not known beforehand. Where all are known a Rust struct
/// says more: [`convert`](super) has its names. A map without `__struct__` and keys that are no atoms are refused.
///
/// ```
/// use kvnode::etf::{ElixirStruct, OwnedTerm, atom};
///
/// let user = ElixirStruct::new(atom("Elixir.MyApp.User")).with("name", "Mafalda")?.with("age", &6)?;
/// let term = OwnedTerm::from_value(&user)?;
/// assert_eq!(format!("{term:?}"), r#"%{__struct__: MyApp.User, age: 6, name: "Mafalda"}"#);
///
/// let user: ElixirStruct = term.to()?;
/// assert_eq!(user.module, "Elixir.MyApp.User");
/// assert_eq!(user.field::<u8>("age")?, 6);
/// let error = user.field::<String>("age").unwrap_err();
/// assert_eq!(error.to_string(), "wanted a string, met the integer 6, at .age");
/// # Ok::<(), kvnode::etf::ConvertError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ElixirStruct {
    /// The module as its atom is: `Elixir.MyApp.User`.
    pub module: Atom,
    /// The fields, without `__struct__`.
    pub fields: BTreeMap<Atom, OwnedTerm>,
}

impl ElixirStruct {
    /// Of a module, without fields. A BEAM takes it for one of the module even where fields are missing: code there may not.
    pub const fn new(module: Atom) -> Self {
        Self { module, fields: BTreeMap::new() }
    }

    /// The same, with this value in a field.
    ///
    /// # Errors
    /// The value is no term, or the name no atom: the fault of the caller.
    pub fn with<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Result<Self, ConvertError> {
        let in_field = |error: ConvertError| error.at(Step::Field(name.to_owned()));
        let value = OwnedTerm::from_value(value).map_err(in_field)?;
        self.fields.insert(Atom::try_from(name)?, value);
        Ok(self)
    }

    /// The value of a field.
    ///
    /// # Errors
    /// The field is missing, or not what `T` asks for: the fault of the sender of the struct, or of the caller.
    pub fn field<'a, T: Deserialize<'a>>(&'a self, name: &str) -> Result<T, ConvertError> {
        let Some(value) = self.fields.get(name) else {
            let module = self.module.as_str();
            let module = module.strip_prefix(MODULE_PREFIX).unwrap_or(module);
            let met = format_args!("the struct %{module}{{}} without it");
            return Err(ConvertError::unexpected(format_args!("the field {name}"), met));
        };
        value.to().map_err(|error| error.at(Step::Field(name.to_owned())))
    }
}

impl Serialize for ElixirStruct {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len() + 1))?;
        map.serialize_entry(&atom(MODULE_FIELD), &self.module)?;
        self.fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for ElixirStruct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = ElixirStruct;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a struct of Elixir")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ElixirStruct, A::Error> {
                let (mut module, mut fields) = (None, BTreeMap::new());
                while let Some(name) = map.next_key::<Atom>()? {
                    if name == MODULE_FIELD {
                        module = Some(map.next_value()?);
                    } else {
                        fields.insert(name, map.next_value()?);
                    }
                }
                let module = module.ok_or_else(|| A::Error::missing_field(MODULE_FIELD))?;
                Ok(ElixirStruct { module, fields })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
