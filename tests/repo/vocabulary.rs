//! Vocabulary: retired names and phrases, and the types of the glossary.

use std::fs;

use super::architecture::{files, root};

/// Retired names of types.
const TYPES: &str = "
    About Action Admission AffiliationsSet Agreed Answer Answers Archived Arguments Ask Asker AtService
    AtStore Audited Before Bounces Budget Builder Call Cell Census Chain Chunk Command Commands Committed
    Component Contact Contacts Content Control Copy Count Counted Counters Created Damage Deadlines Debt
    DebtRecord Decided Defect Detail Dice Dispatch Domains Done Edge Ejabberd Ended Entity Entry Erased
    EventForm EventItemForm EventLine Facts Failure Fault Faulty Fields Files Filling Filter ForeignError
    Found FoundItem FoundSubscription Fresh From Front Gauge Group Hash Header Heard Here Hot Idavoll
    Interests Kept Kind Known Lane Lanes Last Line Lines Link Listed Listing Login Lost Making Mark Marker
    Measured Memory Meter Monitoring More Multicast Need Nodes Note Notification Number Offer Offered Open
    Opened OptionSetting Options OptionsOf Order Origin Outbox Page Part Passed Passing Pending Place Play
    Policies Position Post Presences Published Query Question Random Rates Reach Reached Reader Received
    Record Refusal Remains Remark Remarked Remarks Rendered Reply Request Resource Restored Revoking Roll
    Rosters Rows Section Senders Sent Served Session Sessions Setting Settled Settling Shelf Shows Sled
    Source Special SpecialLine SpecialRecord Specials Spot Spots Stage State Step Submitted Subscribed
    SubscriptionPlace SubscriptionsSet Summary Swept Tables Tag Taken Telling Terms TermsLine TermsRecord
    Then There Tokens ToldRecord Total Trouble Turn Undecided Underway Unsettled Untaken View Waiting Waker
    Wanted Way Went What Why Work Write Writer
";

/// Retired names of functions.
const FUNCTIONS: &str = "
    acceptable are_granted ask_for_capabilities ask_for_capabilities_again ask_for_presence ask_for_rosters
    audited audited_by became_true begin_again begin_anew begin_barriers begin_roll bounced break_off bury
    came close_node common complain concerned copy_store decided dial doubt doubted drop_roll end_at
    end_bounced enrol_all facts failed_at figures finish_roll forget_told fresh_name fresh_number give_back
    go_on govern guarded in_doubt instead_of interested is_amid is_among is_closed is_digested kept
    leave_out like little_node looks_at_items looks_at_newest looks_at_one_node make_way matter may_read
    note_connected notices of_items of_rules of_which open_again outbox pass_time patience placed presences
    quiet read_alone read_little refuse_after_defect remains retract_first roster_came send_again send_own
    settle settle_all settle_barriers settle_doubts settle_failures settle_first settle_subscriptions
    settled settled_turn something_to_do sound sweep take_anyway take_back take_capabilities take_notice
    take_notice_of take_notifications take_privileges take_ready take_refused_roster take_roster
    tell_at_once to_subscribers told_by trust turn unless_moved went while_they_fit write_debts write_group
";

/// Retired names of fields and constants.
const FIELDS: &str = "
    BARRIER_PATIENCE DRAIN_PATIENCE GOODBYE LOOKS MAX_HOT_NODES MAX_PASSED_OVER MAX_REPEATABLE MAX_SERVED
    MAX_TOLD MAX_UNDERWAY MAX_UNSETTLED NOBODY TAKEN_UP free_answers held_answers is_of_all_too is_warned
    late_before like_nodes looked_up_to of_some own_nodes told_by unasked
";

/// Retired names of modules.
const MODULES: &str = "
    answers background backlog census deadlines debt decide dial dice dispatch erasure erlang expire facts
    faulty filling foreign found fresh harness hostile interests lane listing lists lost managed notices
    opening others outbox presences refusal remains served setting settle settling shell showing special
    stage storm supervisor sweep telling tidy tokens underway waker walk wire
";

/// Retired names of metrics.
const METRICS: &str = "
    gjallar_limit_reached_total gjallar_commit_seconds gjallar_sync_seconds gjallar_notifications_total
    gjallar_bounces_total gjallar_node_reads_total gjallar_nodes_closed_total gjallar_connected
    gjallar_backlog_events gjallar_backlog_bytes gjallar_backlog_seconds gjallar_hot_nodes gjallar_rosters
    gjallar_available gjallar_interested gjallar_resident_bytes gjallar_tasks
";

/// Retired phrases of documents and comments.
const PHRASES: &str = "
    is told; are told; was told; were told; be told; told again; told in part; what was told; is owed;
    are owed; what is owed; what it owes; hears of; hear of; hears nothing; hear nothing; takes notice;
    hot node; hot nodes; by and by; taken up anew; made anew; is taken up; is not taken up; node's turn;
    life of a node; life of its name; life of that name; this life of; makes changes true;
    time has something to do; what time does; for whom time acts; in whose name; by whomever;
    who comes later; those who come later; who come later; what took its place; goes by multicast;
    go by multicast; the way to many; as long as it is awaited; is remarked; are remarked;
    what comes over; tells the content; pays its debts; worker lane; the asker; what chance makes;
    stored by halves; disconnected in order; the fuzzer's door
";

/// Text in lower case with single spaces, where a phrase is found also across a line break.
fn normalized(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| !["//", "///", "//!", "#"].contains(word));
    words.collect::<Vec<_>>().join(" ").to_lowercase()
}

/// The retired phrases that a text has.
fn retired_phrases(text: &str) -> Vec<&'static str> {
    let text = format!(" {} ", normalized(text));
    let phrases = PHRASES.split(';').map(str::trim);
    let is_in = |phrase: &&str| {
        let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let words = normalized(phrase);
        text.match_indices(&words).any(|(at, found)| {
            let (before, after) =
                (text[..at].chars().last(), text[at + found.len()..].chars().next());
            !is_letter(before) && !is_letter(after)
        })
    };
    phrases.filter(is_in).collect()
}

#[test]
fn retired_phrases_are_not_used() {
    let comments = |text: &str| {
        let comment = |line: &str| line.find("//").map(|at| line[at..].to_owned());
        text.lines().filter_map(comment).collect::<Vec<_>>().join("\n")
    };
    let mut texts = Vec::new();
    for folder in ["src", "crates", "tests", "benches", "examples", "fuzz/fuzz_targets"] {
        // The comments of this file are examples.
        let sources = files(&root().join(folder), "rs").into_iter();
        let sources = sources.filter(|(path, _)| !path.ends_with("vocabulary.rs"));
        texts.extend(sources.map(|(path, text)| (path, comments(&text))));
    }
    for folder in ["docs", "config"] {
        for kind in ["md", "toml", "lua", "yml"] {
            texts.extend(files(&root().join(folder), kind));
        }
    }
    for file in ["README.md", "SECURITY.md", "CONTRIBUTING.md", "Makefile"] {
        let path = root().join(file);
        texts.extend(fs::read_to_string(&path).ok().map(|text| (path, text)));
    }
    let mut found = Vec::new();
    for (path, text) in texts {
        let phrases = retired_phrases(&text);
        if !phrases.is_empty() {
            found.push(format!("{}: {phrases:?}", path.display()));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn phrase_check_finds_phrases_across_lines() {
    assert_eq!(retired_phrases("/// The JID is\n    /// Told that"), ["is told"]);
    assert_eq!(retired_phrases("By and\nby,"), ["by and by"]);
    assert!(retired_phrases("This toldo is tolder").is_empty());
}

/// The word after a keyword at a place where a definition begins.
fn defined<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let (before, after) = line.split_once(keyword)?;
    let is_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let word = after.strip_prefix(' ')?;
    let end = word.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(word.len());
    Some(&word[..end]).filter(|_| !is_word)
}

/// Returns the name of the field that a line declares.
fn field(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) => rest.split_once(") ").map_or(rest, |(_, rest)| rest).trim_start(),
        None => line,
    };
    let (name, _) = line.split_once(": ")?;
    Some(name).filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
}

/// Returns the retired names that a line of code defines.
fn retired(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or_default();
    let is_in = |list: &str, name: &str| list.split_whitespace().any(|retired| retired == name);
    let types = ["struct", "enum", "trait", "type"].map(|keyword| (keyword, TYPES));
    let others = [("fn", FUNCTIONS), ("mod", MODULES), ("const", FIELDS), ("static", FIELDS)];
    let kinds = types.into_iter().chain(others);
    let names =
        kinds.filter_map(|(keyword, list)| defined(code, keyword).filter(|name| is_in(list, name)));
    names.chain(field(code).filter(|name| is_in(FIELDS, name))).collect()
}

#[test]
fn retired_names_are_not_defined() {
    for folder in [
        "src",
        "crates",
        "tests",
        "benches/hot.rs",
        "benches/load/src",
        "examples",
        "fuzz/fuzz_targets",
    ] {
        let folder = root().join(folder);
        let sources = if folder.is_dir() {
            files(&folder, "rs")
        } else {
            vec![(folder.clone(), fs::read_to_string(&folder).unwrap())]
        };
        // The lines of this file are examples.
        for (path, text) in sources.into_iter().filter(|(path, _)| !path.ends_with("vocabulary.rs"))
        {
            for (number, line) in text.lines().enumerate() {
                let names = retired(line);
                assert!(
                    names.is_empty(),
                    "{}:{}: {names:?} is retired",
                    path.display(),
                    number + 1
                );
            }
            for metric in METRICS.split_whitespace() {
                let name = format!("\"{metric}\"");
                assert!(!text.contains(&name), "{}: {metric} is retired", path.display());
            }
        }
    }
}

#[test]
fn name_check_finds_every_definition() {
    assert_eq!(retired("pub(crate) struct Outbox<T> {"), ["Outbox"]);
    assert_eq!(retired("    async fn settle(&self) {"), ["settle"]);
    assert_eq!(retired("    pub(super) own_nodes: u64,"), ["own_nodes"]);
    assert_eq!(retired("const NOBODY: &str = \"\";"), ["NOBODY"]);
    assert_eq!(retired("    mod lane;"), ["lane"]);
    for line in ["// struct Outbox", "struct Outboxes;", "let settle = x;", "fn unsettle() {"] {
        assert!(retired(line).is_empty(), "{line}");
    }
}

/// Each type that the glossary lists as existing is defined under exactly this name.
#[test]
fn the_types_of_the_glossary_exist() {
    let document = fs::read_to_string(root().join("docs/VOCABULARY.md")).unwrap();
    let sources = ["src", "crates"].map(|folder| files(&root().join(folder), "rs")).concat();
    let mut named = 0;
    let rows = document.lines().filter(|line| line.starts_with("| "));
    for cell in rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next()) {
        for name in cell.split(", ").map(str::trim).filter_map(|name| name.strip_prefix('`')) {
            let name = name.trim_end_matches('`');
            named += 1;
            let is_defined = |line: &str| {
                let keywords = ["struct", "enum", "trait", "type"];
                keywords.iter().any(|keyword| defined(line, keyword) == Some(name))
                    // The macro `id!` defines identifier types.
                    || line.starts_with(&format!("id!({name},"))
            };
            let mut lines = sources.iter().flat_map(|(_, text)| text.lines());
            assert!(lines.any(is_defined), "{name}");
        }
    }
    assert!(named > 30, "{named}");
}
