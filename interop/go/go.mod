module scribe.invalid/interop

go 1.23

require golang.org/x/mod v0.40.0
