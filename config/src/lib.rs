//! The configuration file: TOML text to a validated plan
