package config

import _ "embed"

// Reference is the reference configuration: every key, its default and the
// reason for it.
//
//go:embed reference.yaml
var Reference []byte

// Minimal is the smallest configuration that carries mail.
//
//go:embed minimal.yaml
var Minimal []byte
