//go:build linux

package stage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Vitals are what a service holds and uses at a moment.
type Vitals struct {
	Resident   int64 // bytes
	Files      int   // open ones
	Goroutines int
	Clients    int // joined to a browser, according to its own count
}

// Vitals reads them, from its metrics and from /proc.
func (s *Service) Vitals(ctx context.Context) (v Vitals, err error) {
	var text string
	if err := s.API.Do(ctx, http.MethodGet, "/metrics", nil, &text); err != nil {
		return v, err
	}
	found := 0
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.ParseFloat(value, 64) // comments have no number
		switch name {
		case "go_goroutines":
			v.Goroutines = int(n)
			found++
		case "wallcrawler_relay_connections":
			v.Clients = int(n)
			found++
		}
	}
	if found != 2 {
		return v, errors.New("the metrics do not tell goroutines and clients")
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Pid()))
	if err != nil {
		return v, fmt.Errorf("counting open files: %w", err)
	}
	v.Files, v.Resident = len(entries), Resident(s.Pid())
	return v, nil
}

// Resident is the resident memory of a process, in bytes; 0 if it is gone.
func Resident(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64) // the kernel writes numbers
	return pages * int64(os.Getpagesize())
}

// RaiseFiles raises the limit of open files as far as is allowed, to most at most, and tells where
// it is. What is started afterwards has the same.
func RaiseFiles(most uint64) (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("reading the limit of open files: %w", err)
	}
	limit.Cur = min(limit.Max, most)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("setting the limit of open files: %w", err)
	}
	return limit.Cur, nil
}
