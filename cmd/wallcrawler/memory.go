package main

import (
	"bytes"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// groupShare is how much of its control group's memory the service takes for its own limit: what
// the kernel keeps for its sockets counts in the group, too, and beyond its limit it kills.
const groupShare = 0.9

// Where the soft limit of memory comes from.
const (
	memoryFromEnvironment = "GOMEMLIMIT"
	memoryFromGroup       = "cgroup"
	memoryUnlimited       = "none"
)

// memoryLimit is the soft limit of this process's memory.
type memoryLimit struct {
	bytes  int64 // MaxInt64: none
	source string
	file   string // that names the control group's limit
}

// limitMemory sets the limit from the control group's, unless the environment has set one.
func limitMemory() memoryLimit {
	if os.Getenv("GOMEMLIMIT") != "" {
		return memoryLimit{bytes: debug.SetMemoryLimit(-1), source: memoryFromEnvironment} // the runtime has read it
	}
	group, file := groupMemory("/sys/fs/cgroup", "/proc/self/cgroup")
	if file == "" {
		return memoryLimit{bytes: debug.SetMemoryLimit(-1), source: memoryUnlimited}
	}
	l := memoryLimit{bytes: int64(groupShare * float64(group)), source: memoryFromGroup, file: file}
	debug.SetMemoryLimit(l.bytes)
	return l
}

// tell says once what the limit is.
func (l memoryLimit) tell(log *slog.Logger) {
	if l.source == memoryUnlimited {
		log.Info("memory is not limited", "source", l.source)
		return
	}
	log.Info("memory limit set", "bytes", l.bytes, "source", l.source, "file", l.file)
}

// collector shows the limit; without one it is +Inf.
func (l memoryLimit) collector() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "wallcrawler_process_memory_limit_bytes",
		Help:        "Soft limit of this process's memory, by where it comes from.",
		ConstLabels: prometheus.Labels{"source": strings.ToLower(l.source)}})
	g.Set(float64(l.bytes))
	if l.bytes == math.MaxInt64 {
		g.Set(math.Inf(1))
	}
	return g
}

// groupMemory is the least limit of the control groups that a process is in, and the file that has
// it; both are zero if there is none. root is where control groups are mounted, of version 2, of
// version 1, or of both; self says which groups the process is in.
func groupMemory(root, self string) (least int64, from string) {
	text, err := os.ReadFile(self)
	if err != nil {
		return 0, ""
	}
	for line := range bytes.Lines(text) {
		id, rest, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		var mounts []string
		name := "memory.max"
		switch {
		case !ok:
			continue
		case id == "0" && controllers == "":
			mounts = []string{root, filepath.Join(root, "unified")}
		case strings.Contains(","+controllers+",", ",memory,"):
			mounts, name = []string{filepath.Join(root, "memory")}, "memory.limit_in_bytes"
		}
		for _, mount := range mounts {
			// Inside a container the path may be the machine's, of which only the root is there.
			for dir := filepath.Join("/", path); ; dir = filepath.Dir(dir) {
				file := filepath.Join(mount, dir, name)
				if n, ok := readLimit(file); ok && (from == "" || n < least) {
					least, from = n, file
				}
				if dir == "/" {
					break
				}
			}
		}
	}
	return least, from
}

// readLimit reads one limit. There is none where the file says "max", or (version 1) a number
// that is near the largest.
func readLimit(file string) (n int64, ok bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil && n > 0 && n < 1<<60
}
