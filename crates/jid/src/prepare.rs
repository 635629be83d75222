//! Preparation of the three parts of an address (RFC 7622 §3.2 to §3.4).

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::{Error, precis};
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// Prepares a localpart by UsernameCaseMapped and rejects the characters that RFC 7622 excludes.
pub(crate) fn localpart(text: &str) -> Result<String, Error> {
    let prepared = precis::username_case_mapped(text).ok_or(Error::Localpart)?;
    match prepared.contains(['"', '&', '\'', '/', ':', '<', '>', '@']) {
        true => Err(Error::Localpart),
        false => Ok(prepared),
    }
}

/// Returns an IPv6 address in brackets in the form of RFC 5952; `None` if the text is not such an address.
pub(crate) fn ipv6(text: &str) -> Option<String> {
    let ip = text.strip_prefix('[')?.strip_suffix(']')?;
    Some(format!("[{}]", ip.parse::<Ipv6Addr>().ok()?))
}

/// Prepares a domain: an IP address (IPv6 in the form of RFC 5952), or a domain name with U-labels. Transitional
/// processing, which folds ß, is off.
pub(crate) fn domain(text: &str) -> Result<Cow<'_, str>, Error> {
    if let Some(ip) = ipv6(text) {
        return Ok(Cow::Owned(ip));
    }
    if text.parse::<Ipv4Addr>().is_ok() {
        return Ok(Cow::Borrowed(text));
    }
    // The dot of the root is not part of the name.
    let text = text.strip_suffix('.').unwrap_or(text);
    let (bytes, deny) = (text.as_bytes(), AsciiDenyList::URL);
    let ascii = Uts46::new().to_ascii(bytes, deny, Hyphens::Check, DnsLength::Verify);
    ascii.map_err(|_| Error::Domain)?;
    let (prepared, outcome) = Uts46::new().to_unicode(bytes, deny, Hyphens::Check);
    outcome.map_err(|_| Error::Domain)?;
    Ok(prepared)
}

/// Prepares a resource by OpaqueString.
pub(crate) fn resource(text: &str) -> Result<Cow<'_, str>, Error> {
    precis::opaque_string(text).ok_or(Error::Resource)
}
