//! What the program says about itself: the help text of every verb, as a person sees it in 100 columns.

fn help_of(verb: Option<&str>) -> String {
    let mut command = scribe::cli::command().term_width(100);
    command.build();
    match verb {
        Some(verb) => command
            .find_subcommand_mut(verb)
            .expect("verb")
            .clone()
            .term_width(100)
            .render_long_help(),
        None => command.render_long_help(),
    }
    .to_string()
}

#[test]
fn help_of_every_verb() {
    let verbs: Vec<String> = scribe::cli::command()
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    assert_eq!(
        verbs.join(" "),
        "serve put get delete history list watch prove verify checkpoint import export repair keygen bench \
         check-config"
    );
    insta::assert_snapshot!("help", help_of(None));
    for verb in &verbs {
        let help = help_of(Some(verb));
        assert!(
            help.contains("Example"),
            "`scribe {verb} --help` has no example"
        );
        insta::assert_snapshot!(format!("help-{verb}"), help);
    }
}
