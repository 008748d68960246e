package ecslocal_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
)

// freePort gives a port that nobody listens on at the address, and the listener that held it.
func freePort(t *testing.T, addr string) (int, net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).Port, l
}

func addressOf(t *testing.T, task types.Task) string {
	t.Helper()
	if len(task.Containers[0].NetworkInterfaces) == 0 {
		t.Fatalf("a task that is %s has no address (%s)", *task.LastStatus, aws.ToString(task.StoppedReason))
	}
	return *task.Containers[0].NetworkInterfaces[0].PrivateIpv4Address
}

func TestEveryTaskHasAnAddressOfItsOwn(t *testing.T) {
	const busy = "127.9.9.3"
	port, _ := freePort(t, busy) // somebody else listens there
	d := idle()
	d.Port = port
	cfg := of(d)
	cfg.Network = netip.MustParsePrefix("127.9.9.0/29") // .2 to .6, of which .3 is taken
	_, c := local(t, cfg)
	_, other := local(t, cfg) // another endpoint on this machine, with the same room

	seen := map[string]*string{}
	for i := range 4 {
		client := c
		if i%2 == 1 {
			client = other
		}
		task := run(t, client, request())
		addr := addressOf(t, reach(t, client, task.TaskArn, "RUNNING"))
		if addr == busy || seen[addr] != nil {
			t.Errorf("%s was given out although somebody has it", addr)
		}
		if i%2 == 0 {
			seen[addr] = task.TaskArn
		} else {
			seen[addr] = aws.String("")
		}
	}
	task := reach(t, c, run(t, c, request()).TaskArn, "STOPPED")
	if task.StopCode != types.TaskStopCodeTaskFailedToStart || !strings.Contains(*task.StoppedReason, "no free address") {
		t.Errorf("with no address left: %s, %s", task.StopCode, *task.StoppedReason)
	}
	for addr, arn := range seen {
		if *arn == "" {
			continue
		}
		if _, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: arn}); err != nil {
			t.Fatal(err)
		}
		reach(t, c, arn, "STOPPED")
		task := run(t, other, request())
		if got := addressOf(t, reach(t, other, task.TaskArn, "RUNNING")); got != addr {
			t.Errorf("got %s, want %s, which became free", got, addr)
		}
		break
	}
}

func TestAFunctionKnowsItsTask(t *testing.T) {
	port, l := freePort(t, "127.0.0.1")
	_ = l.Close()
	envs := make(chan ecslocal.TaskEnv, 1)
	d := idle()
	wait := d.Run
	d.Port = port
	d.Run = func(ctx context.Context, env ecslocal.TaskEnv) int {
		envs <- env
		return wait(ctx, env)
	}
	_, c := local(t, of(d))
	task := run(t, c, request())
	env := <-envs
	if env.ARN != *task.TaskArn || env.Port != port || env.Env["ECS_CONTAINER_METADATA_URI_V4"] == "" {
		t.Errorf("got %+v", env)
	}
	if got := addressOf(t, reach(t, c, task.TaskArn, "RUNNING")); got != env.Addr {
		t.Errorf("ECS says %s, the task was told %s", got, env.Addr)
	}
}
