//go:build linux

package main

import _ "embed" // the client's script

//go:embed node/lifecycle.mjs
var lifecycleScript []byte
