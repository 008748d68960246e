//go:build unix && !linux

package ecslocal

// strays finds nothing: without /proc, only the process's own group is known.
func strays(int, string) []int { return nil }
