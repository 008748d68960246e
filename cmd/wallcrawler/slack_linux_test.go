package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// relaxedProcess says that the test binary is to show what became of it.
const relaxedProcess = "RELAXED_PROCESS"

func TestRelaxReachesAllThreads(t *testing.T) {
	if os.Getenv(relaxedProcess) != "" {
		fmt.Fprintf(os.Stdout, "pid %d variable %q\n", os.Getpid(), os.Getenv(slackVariable)) // once from each program
		relax()
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			slack, err := os.ReadFile("/proc/" + task.Name() + "/timerslack_ns")
			if err != nil {
				t.Skipf("this kernel does not tell: %v", err) // or not everybody
			}
			fmt.Fprintf(os.Stdout, "slack %s", slack)
		}
		fmt.Fprintf(os.Stdout, "left %q\n", os.Getenv(slackVariable))
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRelaxReachesAllThreads$", "-test.v") //nolint:gosec // this test
	cmd.Env = append(os.Environ(), relaxedProcess+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "this kernel does not tell") {
		t.Skip("the slack of other threads is not told here")
	}
	pid := cmd.Process.Pid
	first, second := fmt.Sprintf("pid %d variable \"\"\n", pid), fmt.Sprintf("pid %d variable \"1\"\n", pid)
	if said := string(out); !strings.Contains(said, first) || !strings.Contains(said, second) || strings.Count(said, "pid ") != 2 || !strings.Contains(said, "left \"\"\n") ||
		strings.Count(said, "slack ") == 0 || strings.Count(said, "slack ") != strings.Count(said, fmt.Sprintf("slack %d\n", timerSlack)) {
		t.Errorf("the process was not made anew, once, with more slack for all of its threads:\n%s", said)
	}
}

func TestRelaxLeavesAProcessThatIsRelaxed(t *testing.T) {
	t.Setenv(slackVariable, "1")
	before, _, _ := syscall.RawSyscall(syscall.SYS_PRCTL, prGetTimerSlack, 0, 0)
	relax() // else this test ran without end
	if now, _, _ := syscall.RawSyscall(syscall.SYS_PRCTL, prGetTimerSlack, 0, 0); now != before {
		t.Errorf("its slack has gone from %d to %d ns", before, now)
	}
	if os.Getenv(slackVariable) != "" {
		t.Error("what it was told stays in its environment")
	}
}
