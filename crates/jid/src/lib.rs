//! XMPP addresses (RFC 7622).
//!
//! A server stamps an address when it sets the address as the `from` of a stanza. Some servers stamp an address as its
//! user typed it, so [`Jid::stamped`] returns the identity form of the address. Identity forms are stored, and compared
//! byte by byte. [`Jid::new`] takes an address unchanged. [`Jid::prepare`] converts an address that a user wrote into
//! the form of RFC 7622. Neither [`Jid::stamped`] nor [`Jid::prepare`] makes the addresses of two accounts equal.
//!
//! The labels of a domain may be written as A-labels (`xn--mnchen-3ya`) or as U-labels (`münchen`). The two spellings
//! are different [`Jid`]s of one entity. [`Jid::other_spellings`] returns the other spellings of an address, and
//! [`Jid::is_same`] compares two addresses regardless of the spelling.

mod identity;
mod precis;
mod prepare;
mod spellings;

use std::{
    borrow::{Borrow, Cow},
    fmt,
    ops::Deref,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

pub use spellings::{is_same_domain, is_within_domain, with_u_labels};

/// Maximum bytes of each part of an address.
const MAX_PART_BYTES: usize = 1023;

/// Reason why a text is not a valid address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// A part is empty.
    #[error("a part of the address is empty")]
    Empty,
    /// A part is too long.
    #[error("a part of the address has more than {MAX_PART_BYTES} bytes")]
    TooLong,
    /// The address contains a misplaced separator of parts, a control character, or a space outside the resource.
    #[error("the address contains a character that is not allowed")]
    Character,
    /// The profile UsernameCaseMapped rejects the localpart (RFC 7622 §3.3).
    #[error("the localpart is not allowed by RFC 7622")]
    Localpart,
    /// The domain is not an internationalised domain name (RFC 7622 §3.2).
    #[error("the domain is not allowed by RFC 7622")]
    Domain,
    /// The profile OpaqueString rejects the resource (RFC 7622 §3.4).
    #[error("the resource is not allowed by RFC 7622")]
    Resource,
    /// The address has a resource, but a bare address is required.
    #[error("a bare JID is required, without a resource")]
    NotBare,
}

/// Address with or without a resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jid(String);

/// Address without a resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BareJid(Jid);

/// Key of an [account]: one text for all addresses that a server may set as the `from` of the account's stanzas. Limits
/// per entity are counted by this key. Decisions about access never use the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountKey(String);

/// Part of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JidPart<'a>(&'a str);

/// Splits a text into localpart, domain and resource.
fn parts(text: &str) -> (Option<&str>, &str, Option<&str>) {
    let (bare, resource) = match text.split_once('/') {
        Some((bare, resource)) => (bare, Some(resource)),
        None => (text, None),
    };
    match bare.split_once('@') {
        Some((local, domain)) => (Some(local), domain, resource),
        None => (None, bare, resource),
    }
}

/// Returns the text of an address without its resource.
fn bare_of(text: &str) -> &str {
    text.split('/').next().unwrap_or_default()
}

/// Returns one text for all spellings of an account's address that its server may set as `from`. The text is a bare
/// address: its localpart is folded ([`BareJid::fold`]), and its domain is in the identity form with decoded A-labels.
/// Domains that are not the same name in DNS remain different. A text that is not an address is only cut before its
/// first `/`.
#[must_use]
pub fn account(from: &str) -> Cow<'_, str> {
    let bare = bare_of(from);
    if identity::is_plain(bare) && !bare.contains("xn--") {
        return Cow::Borrowed(bare);
    }
    let Ok(identity) = BareJid::stamped(bare) else { return Cow::Borrowed(bare) };
    let domain = spellings::decoded(identity.domain().as_str());
    match identity.node() {
        Some(local) => format!("{}@{domain}", identity::folded(local.as_str())).into(),
        None => domain.into_owned().into(),
    }
}

/// Returns `true` if the profile OpaqueString leaves a text unchanged (RFC 8265 §4.2). Of several spellings that look
/// alike, the profile leaves only one unchanged.
#[must_use]
pub fn is_opaque_string(text: &str) -> bool {
    prepare::resource(text).is_ok_and(|prepared| prepared == text)
}

/// Checks the rules that hold for all forms of an address.
fn check(text: &str) -> Result<(), Error> {
    let (local, domain, resource) = parts(text);
    for part in [local, Some(domain), resource].into_iter().flatten() {
        match part.len() {
            0 => return Err(Error::Empty),
            1..=MAX_PART_BYTES => {}
            _ => return Err(Error::TooLong),
        }
    }
    let is_wrong = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    let is_wrong_in_bare = |c: char| c.is_whitespace() || c == '@';
    let bare = [local, Some(domain)].into_iter().flatten();
    match text.contains(is_wrong) || bare.into_iter().any(|part| part.contains(is_wrong_in_bare)) {
        true => Err(Error::Character),
        false => Ok(()),
    }
}

impl Jid {
    /// Creates an address from a text without changing it, for addresses from the store.
    ///
    /// # Errors
    /// If a part is empty or too long, or contains a character that no form of an address allows.
    pub fn new(text: &str) -> Result<Self, Error> {
        check(text)?;
        Ok(Self(text.to_owned()))
    }

    /// Prepares an address that a user wrote (RFC 7622): the localpart by the profile UsernameCaseMapped, the domain
    /// with U-labels in place of A-labels, the resource by the profile OpaqueString.
    ///
    /// # Errors
    /// If RFC 7622 does not allow the address.
    pub fn prepare(text: &str) -> Result<Self, Error> {
        let (local, domain, resource) = parts(text);
        let mut prepared = String::with_capacity(text.len());
        if let Some(local) = local {
            prepared.push_str(&prepare::localpart(local)?);
            prepared.push('@');
        }
        prepared.push_str(&prepare::domain(domain)?);
        if let Some(resource) = resource {
            prepared.push('/');
            prepared.push_str(&prepare::resource(resource)?);
        }
        Self::new(&prepared)
    }

    /// Returns the identity form of an address that a server stamped. It is the same for every spelling in which the
    /// user may have typed the address at login. Only characters of Unicode 3.2, the version of Stringprep (RFC 3454),
    /// are changed: in the localpart and the domain, letters become lower case, compatibility characters are replaced,
    /// and ignorable characters are removed. The resource, the A-labels of the domain, and letters that RFC 7622
    /// distinguishes (such as ß and ss) remain unchanged.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn stamped(text: &str) -> Result<Self, Error> {
        let stamped = Self::new(text)?;
        let (local, domain, resource) = parts(text);
        if identity::is_plain(bare_of(text)) {
            return Ok(stamped);
        }
        let local = local.map_or(String::new(), |local| format!("{}@", identity::localpart(local)));
        let resource = resource.map_or(String::new(), |resource| format!("/{resource}"));
        let identity = format!("{local}{}{resource}", identity::domain(domain));
        // Mapping may leave a part empty, or make it too long.
        Ok(Self::new(&identity).unwrap_or(stamped))
    }

    /// Prepares an address in a request, as [`prepare`](Self::prepare) does. `sender` is the stamped address of the
    /// entity that sent the request. The bare address in `text` may be another spelling of the sender's bare address,
    /// or have the same [fold](BareJid::fold). Then the result has the sender's bare address in identity form. If, in
    /// addition, `text` has the sender's resource, this resource remains unchanged.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn prepare_from(text: &str, sender: &str) -> Result<Self, Error> {
        let split = |text: &str| text.split_once('/').map(|(_, resource)| resource.to_owned());
        let own = BareJid::stamped(bare_of(sender));
        let is_own = match (&own, BareJid::stamped(bare_of(text))) {
            (Ok(own), Ok(written)) => own.is_same(&written) || own.fold() == written.fold(),
            _ => false,
        };
        let entity = if is_own { own? } else { BareJid::prepare(bare_of(text))? };
        match split(text) {
            None => Ok(entity.into()),
            resource if is_own && resource == split(sender) => {
                Self::new(&format!("{entity}/{}", resource.unwrap_or_default()))
            }
            Some(resource) => Self::new(&format!("{entity}/{}", prepare::resource(&resource)?)),
        }
    }

    /// Returns the other spellings of the address, with U-labels in place of A-labels or the reverse. Empty if the
    /// domain has only one spelling, as most domains have.
    pub fn other_spellings(&self) -> impl Iterator<Item = Self> + use<> {
        let (local, domain, resource) = parts(&self.0);
        let written = |domain: String| {
            let local = local.map_or(String::new(), |local| format!("{local}@"));
            let resource = resource.map_or(String::new(), |resource| format!("/{resource}"));
            Self::new(&format!("{local}{domain}{resource}")).ok()
        };
        let others = spellings::others(domain).into_iter();
        others.filter_map(written).collect::<Vec<_>>().into_iter()
    }

    /// Returns `true` if two addresses differ at most in the spelling of their domains.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let ((local, domain, resource), other) = (parts(&self.0), parts(&other.0));
        (local, resource) == (other.0, other.2) && is_same_domain(domain, other.1)
    }

    /// Returns the address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the localpart.
    #[must_use]
    pub fn node(&self) -> Option<JidPart<'_>> {
        parts(&self.0).0.map(JidPart)
    }

    /// Returns the domain.
    #[must_use]
    pub fn domain(&self) -> JidPart<'_> {
        JidPart(parts(&self.0).1)
    }

    /// Returns the resource.
    #[must_use]
    pub fn resource(&self) -> Option<JidPart<'_>> {
        self.0.split_once('/').map(|(_, resource)| JidPart(resource))
    }

    /// Returns `true` if the address has no resource.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        !self.0.contains('/')
    }

    /// Returns the address without its resource.
    #[must_use]
    pub fn to_bare(&self) -> BareJid {
        let bare = self.0.split('/').next().unwrap_or_default();
        BareJid(Self(bare.to_owned()))
    }

    /// Converts the address into its bare address, without the resource.
    #[must_use]
    pub fn into_bare(mut self) -> BareJid {
        if let Some(at) = self.0.find('/') {
            self.0.truncate(at);
        }
        BareJid(self)
    }
}

impl BareJid {
    /// Creates a bare address from a text without changing it.
    ///
    /// # Errors
    /// As [`Jid::new`]; also if the address has a resource.
    pub fn new(text: &str) -> Result<Self, Error> {
        Self::of(Jid::new(text)?)
    }

    /// Returns the identity form of a bare address that a server stamped, as [`Jid::stamped`].
    ///
    /// # Errors
    /// As [`Jid::new`]; also if the address has a resource.
    pub fn stamped(text: &str) -> Result<Self, Error> {
        Self::of(Jid::stamped(text)?)
    }

    /// Prepares a bare address that a user wrote, as [`Jid::prepare`].
    ///
    /// # Errors
    /// As [`Jid::prepare`]; also if the address has a resource.
    pub fn prepare(text: &str) -> Result<Self, Error> {
        Self::of(Jid::prepare(text)?)
    }

    /// Returns the other spellings of the address, as [`Jid::other_spellings`].
    pub fn other_spellings(&self) -> impl Iterator<Item = Self> + use<> {
        self.0.other_spellings().map(Self)
    }

    /// Returns the address in each of its spellings, beginning with its own.
    pub fn spellings(&self) -> impl Iterator<Item = Self> + use<> {
        [self.clone()].into_iter().chain(self.other_spellings())
    }

    /// Returns the fold of the address, for comparisons: the address folded as Stringprep does, with U-labels.
    /// Addresses that a server may treat as one address have the same fold. Addresses that RFC 7622 distinguishes, for
    /// example because one has ß and the other ss, may have the same fold.
    #[must_use]
    pub fn fold(&self) -> Cow<'_, str> {
        let text = self.as_str();
        if identity::is_plain(text) && !text.contains("xn--") {
            return text.into();
        }
        let (local, domain, _) = parts(text);
        let local = local.map(identity::folded);
        let local = local.map_or(String::new(), |local| format!("{local}@"));
        format!("{local}{}", identity::folded_domain(domain)).into()
    }

    /// Returns the localpart of the [fold](Self::fold); empty if there is none.
    #[must_use]
    pub fn folded_localpart(&self) -> Cow<'_, str> {
        match parts(self.as_str()).0 {
            None => "".into(),
            Some(local) if identity::is_plain(local) => local.into(),
            Some(local) => identity::folded(local).into(),
        }
    }

    /// Returns `true` if the localpart differs from its fold. Some servers deliver stanzas for such an address to the
    /// address with the folded localpart. Therefore the two addresses have the same [account].
    #[must_use]
    pub fn is_alias(&self) -> bool {
        self.node().is_some_and(|local| *self.folded_localpart() != *local.as_str())
    }

    /// Returns the address with its A-labels decoded. The result is the same for all [spellings](Self::spellings) of an
    /// address. Addresses with invalid domains may have the same result without being spellings of each other.
    #[must_use]
    pub fn decoded(&self) -> Cow<'_, str> {
        let (local, domain, _) = parts(self.as_str());
        match (spellings::decoded(domain), local) {
            (Cow::Borrowed(_), _) => self.as_str().into(),
            (Cow::Owned(domain), None) => domain.into(),
            (Cow::Owned(domain), Some(local)) => format!("{local}@{domain}").into(),
        }
    }

    /// Returns `true` if the address, in one of its spellings, equals its [fold](Self::fold). If the result is `false`,
    /// a server that folds addresses by Stringprep may deliver stanzas for this address to another account.
    #[must_use]
    pub fn is_folded(&self) -> bool {
        let fold = self.fold();
        *fold == *self.as_str() || self.other_spellings().any(|other| *fold == *other.as_str())
    }

    fn of(jid: Jid) -> Result<Self, Error> {
        if jid.is_bare() { Ok(Self(jid)) } else { Err(Error::NotBare) }
    }
}

impl AccountKey {
    /// Returns the key of the account of an address. All addresses that a server may set as the `from` of one account's
    /// stanzas have the same key.
    #[must_use]
    pub fn of(address: &BareJid) -> Self {
        Self(account(address.as_str()).into_owned())
    }

    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'a> JidPart<'a> {
    /// Returns the part as text.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl Deref for BareJid {
    type Target = Jid;

    fn deref(&self) -> &Jid {
        &self.0
    }
}

impl Borrow<Jid> for BareJid {
    fn borrow(&self) -> &Jid {
        &self.0
    }
}

impl From<BareJid> for Jid {
    fn from(bare: BareJid) -> Self {
        bare.0
    }
}

impl PartialEq<Jid> for BareJid {
    fn eq(&self, other: &Jid) -> bool {
        self.0 == *other
    }
}

impl PartialEq<BareJid> for Jid {
    fn eq(&self, other: &BareJid) -> bool {
        *self == other.0
    }
}

impl fmt::Display for JidPart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Prepares an address that a user wrote.
            fn from_str(text: &str) -> Result<Self, Error> {
                Self::prepare(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(de::Error::custom)
            }
        }
    };
}

as_text!(Jid);
as_text!(BareJid);
