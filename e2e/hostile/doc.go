// Package hostile has tests only: what the built program does with peers that vanish without a
// word, and with containers that answer an upgrade as they should not.
package hostile
