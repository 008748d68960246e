package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestUsageOfAControlGroup(t *testing.T) {
	two := map[string]string{
		"cpu.stat": "usage_usec 2500000\nuser_usec 1\n", "cpu.max": "200000 100000\n",
		"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 5\ninactive_file 200\n",
	}
	unlimited := map[string]string{
		"cpu.stat": "usage_usec 1000000\n", "cpu.max": "max 100000\n", "memory.max": "max\n", "memory.current": "700\n",
	}
	one := map[string]string{
		"cpuacct/cpuacct.usage": "2500000000\n", "cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n",
		"memory/memory.limit_in_bytes": "1000\n", "memory/memory.usage_in_bytes": "700\n", "memory/memory.stat": "total_inactive_file 200\n",
	}
	none := map[string]string{
		"cpuacct/cpuacct.usage": "1000000000\n", "cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n",
		"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.usage_in_bytes": "700\n",
	}
	for _, tc := range []struct {
		name  string
		files map[string]string
		read  func(string) (usage, bool)
		want  usage
	}{
		{"version 2 with limits", two, groupUsage, usage{cpu: 2500 * time.Millisecond, cpus: 2, memory: 0.5}},
		{"version 2 without", unlimited, groupUsage, usage{cpu: time.Second, memory: -1}},
		{"version 1 with limits", one, groupUsageV1, usage{cpu: 2500 * time.Millisecond, cpus: 0.5, memory: 0.5}},
		{"version 1 without", none, groupUsageV1, usage{cpu: time.Second, memory: -1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, ok := tc.read(write(t, tc.files)); !ok || got != tc.want {
				t.Errorf("got %+v, %t; want %+v", got, ok, tc.want)
			}
		})
	}
	if _, ok := groupUsage(t.TempDir()); ok {
		t.Error("usage of nothing")
	}
}

func TestUsageOfTheMachine(t *testing.T) {
	got := machineUsage(write(t, map[string]string{
		"stat":    "cpu  100 50 50 9000 900 10 10 7 0 0\ncpu0 1 1 1 1\n",
		"meminfo": "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n",
	}))
	if got.cpu != 2200*time.Millisecond || got.cpus < 1 || got.memory != 0.75 {
		t.Errorf("got %+v", got)
	}
	if u := readUsage(); u.cpus == 0 || u.memory <= 0 || u.memory > 1 {
		t.Errorf("this machine: %+v", u)
	}
}
