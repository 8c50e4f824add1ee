//! The codes of ISO 3166-1, so that a code that no address can have is seen at load.

/// Officially assigned, and XK, which databases use for Kosovo.
const CODES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN \
    BO BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC \
    EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR \
    HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT \
    LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP \
    NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL \
    SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE \
    VG VI VN VU WF WS XK YE YT ZA ZM ZW";

/// What to write in place of a code that is none; `None` when it is one.
pub(crate) fn is_called(code: &str) -> Option<&'static str> {
    if code.len() == 2 && CODES.split(' ').any(|known| known == code) {
        return None;
    }
    Some(match code {
        "UK" => "write \"GB\"",
        "EL" => "write \"GR\"",
        "EU" | "EEA" => "a set is written \"set:EU\"",
        _ => "a country is two capital letters (\"DE\"), a set is \"set:NAME\"",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_249_codes_and_kosovos() {
        let codes: Vec<&str> = CODES.split(' ').collect();
        assert_eq!(codes.len(), 250);
        assert!(codes.is_sorted() && codes.iter().all(|code| is_called(code).is_none()));
    }

    #[test]
    fn what_people_write_for_a_code_is_no_code() {
        for wrong in ["UK", "EL", "EU", "de", "DEU", "", "A ", "AD AE"] {
            assert!(is_called(wrong).is_some(), "{wrong:?}");
        }
    }
}
