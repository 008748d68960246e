package tunnel_test

import (
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// The kernel looks after both connections from the keeper's first look on; without a keeper, from the
// beginning. A client that answers and takes nothing is the keeper's to judge, before the kernel does.
func TestTheKernelLooksAfterBothConnections(t *testing.T) {
	tuned := func(e *ends, forClient time.Duration) func() bool {
		return func() bool {
			client, backend, probes := e.tunnel.TunedForTest()
			return client == forClient && backend == 30*time.Second && probes
		}
	}
	until(t, "a tunnel without a keeper is looked after", tuned(start(t, tunnel.Config{}, nil, nil), 30*time.Second))
	k := tunnel.NewKeeper(tunnel.KeeperConfig{Tick: time.Second, Ping: time.Hour, Stall: 40 * time.Second})
	kept := tuned(start(t, tunnel.Config{Keeper: k}, nil, nil), 45*time.Second)
	until(t, "a tunnel with a keeper is looked after", func() bool {
		k.LookForTest()
		return kept()
	})
}
