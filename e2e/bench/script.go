//go:build linux

package main

import _ "embed" // the scripts

//go:embed node/lifecycle.mjs
var lifecycleScript []byte

//go:embed node/ws-relay.cjs
var nodeRelay []byte

//go:embed node/v1-relay.cjs
var nodeEnvelopes []byte
