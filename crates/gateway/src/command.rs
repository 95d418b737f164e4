//! The command line.

use std::path::PathBuf;

pub(crate) const USAGE: &str = "\
Puts an OfficeRnD token on the requests of programs that have none.

Usage: officernd-gateway [--config FILE] [COMMAND]

Commands:
  run          serve until SIGTERM (the default)
  check        try the configuration: token, scopes, API; sends 1 token request
  healthcheck  ask the running gateway's /healthz; `healthcheck ready` asks /readyz

Options:
  --config FILE  a TOML file; GATEWAY_CONFIG names one too
  --help, --version
";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Run,
    Check,
    Healthcheck { path: &'static str },
    Help,
    Version,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) command: Command,
    pub(crate) config: Option<PathBuf>,
}

impl From<Command> for Arguments {
    fn from(command: Command) -> Self {
        Self {
            command,
            config: None,
        }
    }
}

impl Arguments {
    /// Reads the arguments that follow the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut config = None;
        let mut words = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--config" => match arguments.next() {
                    Some(file) => config = Some(file.into()),
                    None => return Err("--config needs a file".to_owned()),
                },
                "--help" | "-h" | "help" => return Ok(Command::Help.into()),
                "--version" | "-V" | "version" => return Ok(Command::Version.into()),
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option}"));
                }
                _ => words.push(argument),
            }
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let command = match words.as_slice() {
            [] | ["run"] => Command::Run,
            ["check"] => Command::Check,
            ["healthcheck"] => Command::Healthcheck { path: "/healthz" },
            ["healthcheck", "ready"] => Command::Healthcheck { path: "/readyz" },
            words => return Err(format!("unknown command {}", words.join(" "))),
        };
        Ok(Self { command, config })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_command_and_a_file_are_read_in_any_order() {
        let check = |config| Arguments {
            command: Command::Check,
            config,
        };
        assert_eq!(parse("check"), Ok(check(None)));
        assert_eq!(parse("--config a check"), Ok(check(Some("a".into()))));
        assert_eq!(parse("check --config a"), Ok(check(Some("a".into()))));
        assert_eq!(parse("").unwrap().command, Command::Run);
        let ready = Command::Healthcheck { path: "/readyz" };
        assert_eq!(parse("healthcheck ready").unwrap().command, ready);
        assert_eq!(parse("check -h").unwrap().command, Command::Help);
        assert_eq!(parse("-V").unwrap().command, Command::Version);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse("--config").unwrap_err(), "--config needs a file");
        assert_eq!(parse("--conf a").unwrap_err(), "unknown option --conf");
        assert_eq!(parse("run fast").unwrap_err(), "unknown command run fast");
    }
}
