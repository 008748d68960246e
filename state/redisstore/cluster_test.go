package redisstore_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state/redisstore"
	"github.com/wallcrawler/wallcrawler/state/statetest"
)

func TestOnCluster(t *testing.T) {
	addrs := startCluster(t)
	statetest.Run(t, func(t *testing.T) statetest.Harness {
		for _, addr := range addrs {
			must(t, client(t, addr).FlushAll(t.Context()).Err())
		}
		h := harness(t, redisstore.Options{Addrs: addrs[:1], IsClusterMode: true})
		h.Notified = true
		return h
	})
}

// startCluster runs three masters that share the slots.
func startCluster(t *testing.T) []string {
	t.Helper()
	const masters, slots = 3, 16384
	var addrs, buses []string
	var nodes []*redis.Client
	for range masters {
		bus := strconv.Itoa(freePort(t))
		addr := startRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "5000",
			"--notify-keyspace-events", "K$gxe")
		addrs, buses, nodes = append(addrs, addr), append(buses, bus), append(nodes, client(t, addr))
	}
	ctx := t.Context()
	for i, node := range nodes {
		must(t, node.ClusterAddSlotsRange(ctx, i*slots/masters, (i+1)*slots/masters-1).Err())
		must(t, node.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
		host, port, err := net.SplitHostPort(addrs[0])
		must(t, err)
		if i > 0 {
			must(t, node.Do(ctx, "CLUSTER", "MEET", host, port, buses[0]).Err())
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for _, node := range nodes {
		for {
			info := node.ClusterInfo(ctx).Val()
			if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", masters)) {
				break
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("the cluster did not form: %s", info)
			}
		}
	}
	return addrs
}
