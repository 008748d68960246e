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
	run := func(cores string) (pid int, said string) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRelaxReachesAllThreads$", "-test.v") //nolint:gosec // this test
		cmd.Env = append(os.Environ(), relaxedProcess+"=1", "GOMAXPROCS="+cores)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if strings.Contains(string(out), "this kernel does not tell") {
			t.Skip("the slack of other threads is not told here")
		}
		return cmd.Process.Pid, string(out)
	}
	pid, said := run("1")
	for _, part := range []string{fmt.Sprintf("pid %d variable \"\"\n", pid), fmt.Sprintf("pid %d variable \"1\"\n", pid), "left \"\"\n"} {
		if strings.Count(said, part) != 1 || strings.Count(said, "pid ") != 2 {
			t.Errorf("the process was not made anew, once:\n%s", said)
		}
	}
	if threads := strings.Count(said, "slack "); threads < 2 || threads != strings.Count(said, fmt.Sprintf("slack %d\n", timerSlack)) {
		t.Errorf("not all threads have the slack:\n%s", said)
	}
	if _, said := run("2"); strings.Count(said, "pid ") != 1 || strings.Contains(said, fmt.Sprintf("slack %d\n", timerSlack)) {
		t.Errorf("a process with two cores was relaxed:\n%s", said)
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
