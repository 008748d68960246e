package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheLeastLimitOfTheControlGroupsCounts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		self  string
		files map[string]string
		want  int64
		from  string
	}{
		"version 2, a container":                  {"0::/\n", map[string]string{"memory.max": "536870912\n"}, 512 << 20, "memory.max"},
		"version 2, no limit":                     {"0::/\n", map[string]string{"memory.max": "max\n"}, 0, ""},
		"version 2, one above":                    {"0::/a/b\n", map[string]string{"a/memory.max": "1000\n", "a/b/memory.max": "max\n"}, 1000, "a/memory.max"},
		"version 2, the lower below":              {"0::/a/b\n", map[string]string{"a/memory.max": "1000\n", "a/b/memory.max": "500"}, 500, "a/b/memory.max"},
		"version 2, a path that is the machine's": {"0::/system.slice/docker-x.scope\n", map[string]string{"memory.max": "700\n"}, 700, "memory.max"},
		"version 1": {"5:memory:/a\n4:cpu,cpuacct:/a\n", map[string]string{"memory/a/memory.limit_in_bytes": "900\n",
			"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 900, "memory/a/memory.limit_in_bytes"},
		"version 1, no limit":  {"5:memory:/\n", map[string]string{"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0, ""},
		"both":                 {"5:memory:/\n0::/\n", map[string]string{"memory/memory.limit_in_bytes": "900\n", "unified/memory.max": "max"}, 900, "memory/memory.limit_in_bytes"},
		"a limit of something": {"5:hugetlb:/\n", map[string]string{"memory/memory.limit_in_bytes": "900\n"}, 0, ""},
		"no limit that counts": {"0::/\n", map[string]string{"memory.max": "0\n"}, 0, ""},
		"nonsense":             {"nonsense\n0::\n:::\n", map[string]string{"memory.max": "words"}, 0, ""},
		"no groups":            {"", nil, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, self := t.TempDir(), filepath.Join(t.TempDir(), "cgroup")
			write(t, self, c.self)
			for file, text := range c.files {
				write(t, filepath.Join(root, file), text)
			}
			got, from := groupMemory(root, self)
			want := ""
			if c.from != "" {
				want = filepath.Join(root, c.from)
			}
			if got != c.want || from != want {
				t.Errorf("it is %d by %q, want %d by %q", got, from, c.want, want)
			}
		})
	}
	if got, from := groupMemory(t.TempDir(), filepath.Join(t.TempDir(), "nothing")); got != 0 || from != "" {
		t.Errorf("without a list of groups it is %d by %q", got, from)
	}
}

// write makes a file and the directories that it is in.
func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
