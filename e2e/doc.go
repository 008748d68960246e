// Package e2e holds the tests of the built program as a whole: real processes, a real
// redis-server, real Chromium, and the clients that people use.
//
// It sees the program as its users do: by its flags, its environment, its addresses and its
// output. It must not reach into the packages it tests, but for the local ECS endpoint, which
// stands in for AWS.
package e2e
