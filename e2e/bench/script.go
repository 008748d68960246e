//go:build linux

package main

import _ "embed" // the scripts

//go:embed node/lifecycle.mjs
var lifecycleScript []byte

//go:embed node/ws-relay.cjs
var nodeRelay []byte
