//go:build unix && !linux

package ecslocal

// strays finds nothing: without /proc, only the process's own group is known.
func strays(int, string) (found []int, all bool) { return nil, false }
