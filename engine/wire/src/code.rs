//! `code_enum!`: an enum over the codes that a standard names, which keeps the codes that it does not.

/// Defines an enum over named codes plus `Other(code)`, with conversions both ways and `Display` in words.
///
/// Peers may send any value, and some answers must carry it back; so a reserved value is a value, not an error.
macro_rules! code_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident: $type:ty {
            $($(#[$variant_meta:meta])* $variant:ident = $value:literal => $text:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
            /// A value without a name here, as it came. `from_code` never puts a named value into it.
            Other($type),
        }

        impl $name {
            /// All named values, in the order of their codes.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The value with this code. Total: what has no name becomes `Other`.
            #[inline]
            pub const fn from_code(code: $type) -> $name {
                match code {
                    $($value => $name::$variant,)*
                    other => $name::Other(other),
                }
            }

            /// The code as it is on the wire.
            #[inline]
            pub const fn code(self) -> $type {
                match self {
                    $($name::$variant => $value,)*
                    $name::Other(other) => other,
                }
            }
        }

        impl From<$type> for $name {
            #[inline]
            fn from(code: $type) -> $name {
                $name::from_code(code)
            }
        }

        impl From<$name> for $type {
            #[inline]
            fn from(value: $name) -> $type {
                value.code()
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self {
                    $($name::$variant => f.write_str($text),)*
                    $name::Other(other) => write!(f, "reserved {other:#x}"),
                }
            }
        }
    };
}
