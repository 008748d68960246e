package agent

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// userHz is the unit of /proc/stat: 100 a second on every machine that Linux runs on.
const userHz = 100

// readUsage reads the counters of the control group, or of the machine for what the group
// does not limit.
func readUsage() usage {
	const root = "/sys/fs/cgroup"
	machine := machineUsage("/proc")
	u, ok := groupUsage(root)
	if !ok {
		u, ok = groupUsageV1(root)
	}
	if !ok {
		return machine
	}
	if u.cpus == 0 {
		u.cpu, u.cpus = machine.cpu, machine.cpus
	}
	if u.memory < 0 {
		u.memory = machine.memory
	}
	return u
}

// groupUsage reads version 2. cpus is 0 and memory -1 where there is no limit.
func groupUsage(root string) (usage, bool) {
	stat, ok := readFields(filepath.Join(root, "cpu.stat"))
	if !ok {
		return usage{}, false
	}
	u := usage{cpu: time.Duration(stat["usage_usec"]) * time.Microsecond, memory: -1}
	if quota, period, ok := strings.Cut(readText(filepath.Join(root, "cpu.max")), " "); ok {
		u.cpus = ratio(parse(quota), parse(period))
	}
	memory, _ := readFields(filepath.Join(root, "memory.stat"))
	if limit := parse(readText(filepath.Join(root, "memory.max"))); limit > 0 {
		used := parse(readText(filepath.Join(root, "memory.current"))) - memory["inactive_file"]
		u.memory = ratio(used, limit)
	}
	return u, true
}

// groupUsageV1 reads version 1.
func groupUsageV1(root string) (usage, bool) {
	cpu := readText(filepath.Join(root, "cpuacct", "cpuacct.usage"))
	if cpu == "" {
		return usage{}, false
	}
	u := usage{cpu: time.Duration(parse(cpu)), memory: -1}
	u.cpus = ratio(parse(readText(filepath.Join(root, "cpu", "cpu.cfs_quota_us"))),
		parse(readText(filepath.Join(root, "cpu", "cpu.cfs_period_us"))))
	memory, _ := readFields(filepath.Join(root, "memory", "memory.stat"))
	limit := parse(readText(filepath.Join(root, "memory", "memory.limit_in_bytes")))
	const none = 1 << 60 // "unlimited" is a number near the largest
	if limit > 0 && limit < none {
		used := parse(readText(filepath.Join(root, "memory", "memory.usage_in_bytes"))) - memory["total_inactive_file"]
		u.memory = ratio(used, limit)
	}
	return u, true
}

// machineUsage reads /proc.
func machineUsage(root string) usage {
	u := usage{cpus: float64(runtime.NumCPU())}
	line, _, _ := strings.Cut(readText(filepath.Join(root, "stat")), "\n")
	for i, field := range strings.Fields(line) {
		switch i {
		case 1, 2, 3, 6, 7: // user, nice, system, irq, softirq
			u.cpu += time.Duration(parse(field)) * time.Second / userHz
		}
	}
	memory, _ := readFields(filepath.Join(root, "meminfo"))
	u.memory = ratio(memory["MemTotal:"]-memory["MemAvailable:"], memory["MemTotal:"])
	return u
}

func ratio(a, b float64) float64 {
	if a <= 0 || b <= 0 {
		return 0
	}
	return a / b
}

func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// parse gives 0 for what is not a number, such as "max".
func parse(s string) float64 {
	f, _ := strconv.ParseFloat(s, 64)
	return f
}

// readFields reads lines of a name and a number.
func readFields(path string) (map[string]float64, bool) {
	text := readText(path)
	if text == "" {
		return nil, false
	}
	fields := map[string]float64{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 2 {
			fields[f[0]] = parse(f[1])
		}
	}
	return fields, true
}
