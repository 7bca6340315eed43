//! What the program says about itself: the help text of every verb, as a person sees it in 100 columns.

fn help_of(verbs: &[&str]) -> String {
    let mut command = scribe::cli::command().term_width(100);
    command.build();
    let mut found = &mut command;
    for verb in verbs {
        found = found.find_subcommand_mut(verb).expect("verb");
    }
    found.clone().term_width(100).render_long_help().to_string()
}

#[test]
fn help_of_every_verb() {
    let command = scribe::cli::command();
    let names = |command: &clap::Command| -> Vec<String> {
        command
            .get_subcommands()
            .map(|verb| verb.get_name().to_owned())
            .collect()
    };
    let verbs = names(&command);
    assert_eq!(
        verbs.join(" "),
        "serve put get delete history list watch prove verify audit monitor checkpoint policy import export repair cluster \
         witness keygen bench check-config"
    );
    insta::assert_snapshot!("help", help_of(&[]));
    for verb in &verbs {
        let help = help_of(&[verb]);
        assert!(
            help.contains("Example"),
            "`scribe {verb} --help` has no example"
        );
        insta::assert_snapshot!(format!("help-{verb}"), help);
    }
    let cluster = names(command.find_subcommand("cluster").expect("verb"));
    assert_eq!(
        cluster.join(" "),
        "init up status token promote remove replace transfer rotate-key renew"
    );
    for verb in &cluster {
        let help = help_of(&["cluster", verb]);
        assert!(
            help.contains("Example"),
            "`scribe cluster {verb} --help` has no example"
        );
        insta::assert_snapshot!(format!("help-cluster-{verb}"), help);
    }
    let policy = names(command.find_subcommand("policy").expect("verb"));
    assert_eq!(policy.join(" "), "show check update");
    for verb in &policy {
        let help = help_of(&["policy", verb]);
        assert!(
            help.contains("Example"),
            "`scribe policy {verb} --help` has no example"
        );
        insta::assert_snapshot!(format!("help-policy-{verb}"), help);
    }
}
