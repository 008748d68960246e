package ecslocal

import (
	"bytes"
	"os"
	"strconv"
)

// strays finds the processes that belong to the session or carry the marker in their
// environment: whatever the task's process has started, wherever it has moved since.
// Zombies are not listed; they are dead. all says that there are no others.
func strays(session int, marker string) (found []int, all bool) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, false
	}
	defer func() { _ = proc.Close() }()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, false
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		// pid (comm) state ppid pgrp session …, where comm may hold anything.
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 4 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
			continue
		}
		if sid, err := strconv.Atoi(string(fields[3])); err == nil && sid == session {
			found = append(found, pid)
			continue
		}
		if environ, err := os.ReadFile("/proc/" + name + "/environ"); err == nil && hasEntry(environ, marker) {
			found = append(found, pid)
		}
	}
	return found, true
}

func hasEntry(environ []byte, entry string) bool {
	for kv := range bytes.SplitSeq(environ, []byte{0}) {
		if string(kv) == entry {
			return true
		}
	}
	return false
}
