package proxy_test

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/state"
)

// stranger registers a container that we did not launch, by its own word alone.
func (w *world) stranger(c *container, ip, replica string) {
	w.t.Helper()
	if _, err := w.store.Register(w.t.Context(), state.Registration{
		ID: c.id, BootID: c.bootID, Protocol: 2, MaxSessions: 4,
		Claimed: state.Claim{IP: ip, Port: c.port, TaskARN: "local"}, Owner: replica,
	}); err != nil {
		w.t.Fatal(err)
	}
}

func TestAContainerThatWeDidNotLaunchIsDialledWhereItIsTrusted(t *testing.T) {
	w := newWorld(t)
	networks := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	var refused atomic.Int32
	w.links("r1", func(cfg *proxy.LinksConfig) {
		cfg.Trusted = func(c *state.Container) (string, error) {
			addr, err := c.Claimed.Within(networks)
			if err != nil {
				refused.Add(1)
			}
			return addr.String(), err
		}
	})
	good, bad := newContainer(t, "cnt_good"), newContainer(t, "cnt_bad")
	w.stranger(good, "127.0.0.1", "r1")
	w.stranger(bad, "10.1.2.3", "r1")
	w.await("the trusted container to be ready", func() bool { return w.container("cnt_good").Phase == state.ContainerReady })
	if got, want := w.container("cnt_good"), fmt.Sprintf("127.0.0.1:%d", good.port); got.Addr != want || got.TaskARN != "" {
		t.Errorf("recorded %q and %q, want %s and no task", got.Addr, got.TaskARN, want)
	}
	w.await("several attempts at the other", func() bool { return refused.Load() >= 2 })
	if bad.dialled() != 0 || w.container("cnt_bad").Phase != state.PendingVerification {
		t.Error("a container outside the networks was taken")
	}
	if w.fleet.called() != 0 {
		t.Error("ECS was asked about containers that it does not know")
	}
}

func TestALaunchedContainerIsNeverTrusted(t *testing.T) {
	w := newWorld(t)
	var asked atomic.Int32
	w.links("r1", func(cfg *proxy.LinksConfig) {
		cfg.Trusted = func(*state.Container) (string, error) {
			asked.Add(1)
			return "127.0.0.1:1", nil
		}
	})
	c := newContainer(t, "cnt_1")
	w.launch(c)
	w.register(c, "r1")
	w.await("the container to be ready", func() bool { return w.container("cnt_1").Phase == state.ContainerReady })
	if got, want := w.container("cnt_1").Addr, fmt.Sprintf("127.0.0.1:%d", c.port); asked.Load() != 0 || got != want {
		t.Errorf("its own word counted: at %s", got)
	}
}

func TestNobodyIsTrustedUnlessConfigured(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := newContainer(t, "cnt_1")
	w.stranger(c, "127.0.0.1", "r1")
	w.await("the links to have looked", func() bool {
		m, ok := w.mirror.Container("cnt_1")
		return ok && m.Owner == "r1"
	})
	if c.dialled() != 0 || w.container("cnt_1").Phase != state.PendingVerification {
		t.Error("dialled")
	}
}
