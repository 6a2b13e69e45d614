//! Dates as HTTP and certificates have them, in seconds since 1970.

/// Days of months before each, without a leap day.
const DAYS_BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment of UTC, by the calendar.
fn moment(year: u64, month: usize, day: u64, [hour, minute, second]: [u64; 3]) -> Option<u64> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let before = DAYS_BEFORE.get(month.checked_sub(1)?)?;
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    let past = year - 1;
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let days =
        (year - 1970) * 365 + leaps(past) - leaps(1969) + before + u64::from(is_leap && month > 2) + day - 1;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
pub(super) fn http_date(text: &str) -> Option<u64> {
    let mut words = text.split_once(',')?.1.split_ascii_whitespace();
    let day = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? + 1;
    let year = words.next()?.parse().ok()?;
    let mut parts = words.next()?.splitn(3, ':').map(|part| part.parse().ok());
    let time = [parts.next()??, parts.next()??, parts.next()??];
    words.next().filter(|zone| *zone == "GMT")?;
    moment(year, month, day, time)
}

/// When a certificate ends (RFC 5280, 4.1): of its first field the fifth, or the fourth where there is no version, is its validity, whose
/// second field is a time. `None`: these bytes are none.
pub(super) fn certificate_end(der: &[u8]) -> Option<u64> {
    let (0x30, certificate, _) = tlv(der)? else { return None };
    let (0x30, mut fields, _) = tlv(certificate)? else { return None };
    if fields.first() == Some(&0xa0) {
        fields = tlv(fields)?.2;
    }
    // The serial number, the algorithm and the issuer.
    for _ in 0..3 {
        fields = tlv(fields)?.2;
    }
    let (0x30, validity, _) = tlv(fields)? else { return None };
    let (_, _, rest) = tlv(validity)?;
    let (tag, end, _) = tlv(rest)?;
    let text = std::str::from_utf8(end).ok()?.strip_suffix('Z')?;
    let number = |from: usize, to: usize| -> Option<u64> { text.get(from..to)?.parse().ok() };
    let (year, at) = match tag {
        // UTCTime: of two digits those below 50 are of this century.
        0x17 => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        // GeneralizedTime.
        0x18 => (number(0, 4)?, 4),
        _ => return None,
    };
    let part = |nth: usize| number(at + 2 * nth, at + 2 * nth + 2);
    moment(year, usize::try_from(part(0)?).ok()?, part(1)?, [part(2)?, part(3)?, part(4)?])
}

/// A value of DER with its tag, and what is behind it.
fn tlv(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, len], rest) = bytes.split_first_chunk::<2>()?;
    let (len, rest) = match len {
        0..=0x7f => (usize::from(len), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(len & 0x7f))?;
            (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((tag, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_what_is_none_is_not() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        assert_eq!(http_date("Fri, 01 Mar 2024 12:00:00 GMT"), Some(1_709_294_400));
        assert_eq!(http_date("Mon, 01 Mar 2100 00:00:00 GMT"), Some(4_107_542_400));
        for none in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 99 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1900 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
        ] {
            assert_eq!(http_date(none), None, "{none}");
        }
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_and_other_bytes_are_none() {
        let made = |year: i32| {
            let mut params = rcgen::CertificateParams::default();
            params.not_after = rcgen::date_time_ymd(year, 2, 3);
            let key = rcgen::KeyPair::generate().expect("the system has random bytes");
            params.self_signed(&key).expect("it can be signed").der().to_vec()
        };
        let near = made(2031);
        assert_eq!(certificate_end(&near), http_date("Mon, 03 Feb 2031 00:00:00 GMT"));
        assert_eq!(certificate_end(&made(2077)), http_date("Wed, 03 Feb 2077 00:00:00 GMT"));
        for len in 0..near.len() {
            assert_eq!(certificate_end(&near[..len]), None, "{len}");
        }
        for at in 0..near.len().min(200) {
            for byte in [0, 0x30, 0x7f, 0x80, 0x84, 0x85, 0xff] {
                let mut changed = near.clone();
                changed[at] = byte;
                let _read_or_none = certificate_end(&changed);
            }
        }
    }
}
