//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// node is one redis-server.
type node struct {
	*stage.Process
	addr   string
	bus    string
	dir    string
	args   []string
	client *redis.Client
}

func (w *world) startNode(ctx context.Context, args ...string) (*node, error) {
	port, err := stage.FreePort()
	if err != nil {
		return nil, err
	}
	bus, err := stage.FreePort()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(w.stage.Tmp, "redis-"+strconv.Itoa(port))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	n := &node{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), bus: strconv.Itoa(bus), dir: dir}
	n.args = append([]string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--save", "",
		"--appendonly", "yes", "--appendfsync", "everysec", "--notify-keyspace-events", "K$gxe"}, args...)
	if len(args) > 0 {
		n.args = append(n.args, "--cluster-port", n.bus)
	}
	n.client = redis.NewClient(&redis.Options{Addr: n.addr, DialTimeout: time.Second, MaxRetries: -1})
	w.onClose(func() { _ = n.client.Close() })
	w.onClose(func() {
		_ = syscall.Kill(n.Pid(), syscall.SIGCONT)
		n.Stop(syscall.SIGTERM)
	})
	w.nodes = append(w.nodes, n)
	return n, w.bootNode(ctx, n)
}

// forget removes the data of a server that does not run.
func (n *node) forget() error { return os.RemoveAll(filepath.Join(n.dir, "appendonlydir")) }

// bootNode starts a server that does not run, with the data that it had.
func (w *world) bootNode(ctx context.Context, n *node) (err error) {
	n.Process, err = w.stage.Start(stage.Program{Name: "redis-server", Path: "redis-server", Env: []string{"PATH=/usr/bin:/bin"}, Args: n.args})
	if err != nil {
		return err
	}
	return n.Until(ctx, 20*time.Second, "redis answers", func() error { return n.client.Ping(ctx).Err() })
}

// startRedis starts a server behind a proxy, or a cluster; it returns the replicas' settings.
func (w *world) startRedis(ctx context.Context, clustered bool) (env []string, err error) {
	if clustered {
		return w.startCluster(ctx)
	}
	n, err := w.startNode(ctx)
	if err != nil {
		return nil, err
	}
	if w.link, err = startProxy(n.addr); err != nil {
		return nil, err
	}
	w.onClose(w.link.close)
	w.redis = n.client
	return []string{"REDIS_ENDPOINT=" + w.link.addr(), "REDIS_ENABLE_KEYSPACE_EVENTS=true"}, nil
}

// startCluster runs three masters that share the slots, and a replica of each.
func (w *world) startCluster(ctx context.Context) (env []string, err error) {
	const masters, all, count = 3, 6, 16384
	var addrs []string
	for range all {
		n, err := w.startNode(ctx, "--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--repl-diskless-sync-delay", "0")
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, n.addr)
	}
	host, port, err := net.SplitHostPort(w.nodes[0].addr)
	if err != nil {
		return nil, err
	}
	for i, n := range w.nodes {
		var errs []error
		errs = append(errs, n.client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
		if i < masters {
			errs = append(errs, n.client.ClusterAddSlotsRange(ctx, i*count/masters, (i+1)*count/masters-1).Err())
		}
		if i > 0 {
			errs = append(errs, n.client.Do(ctx, "CLUSTER", "MEET", host, port, w.nodes[0].bus).Err())
		}
		if err := errors.Join(errs...); err != nil {
			return nil, fmt.Errorf("forming a cluster: %w", err)
		}
	}
	known := func(n *node) error {
		info, err := n.client.ClusterInfo(ctx).Result()
		if err == nil && !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", all)) {
			err = stage.ErrNotYet
		}
		return err
	}
	for i, n := range w.nodes {
		if err := w.until(ctx, 30*time.Second, "the cluster's nodes know one another", func() error { return known(n) }); err != nil {
			return nil, err
		}
		if i < masters {
			continue
		}
		id, err := w.nodes[i-masters].client.ClusterMyID(ctx).Result()
		if err != nil {
			return nil, err
		}
		if err := w.until(ctx, 30*time.Second, "it is a replica", func() error { return n.client.ClusterReplicate(ctx, id).Err() }); err != nil {
			return nil, err
		}
	}
	for _, n := range w.nodes {
		err := w.until(ctx, 60*time.Second, "the cluster is whole", func() error { return n.whole(ctx) })
		if err != nil {
			return nil, err
		}
	}
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	w.onClose(func() { _ = cluster.Close() })
	w.redis = cluster
	return []string{"REDIS_ENDPOINT=" + strings.Join(addrs[:masters], ","), "REDIS_ENABLE_KEYSPACE_EVENTS=true"}, nil
}

// whole is nil when the node thinks well of the cluster, and has its master's data if it is a
// replica.
func (n *node) whole(ctx context.Context) error {
	info, err := n.client.ClusterInfo(ctx).Result()
	if err != nil {
		return err
	}
	if !strings.Contains(info, "cluster_state:ok") {
		return stage.ErrNotYet
	}
	role, err := n.client.Info(ctx, "replication").Result()
	if err == nil && strings.Contains(role, "role:slave") && !strings.Contains(role, "master_link_status:up") {
		err = errors.New("its master has not sent its data yet")
	}
	return err
}

// master is the server that has our control keys now.
func (w *world) master(ctx context.Context) (*node, error) {
	if w.link != nil {
		return w.nodes[0], nil
	}
	for _, n := range w.nodes {
		// Who is no master, or has other slots, refuses.
		if err := n.client.Get(ctx, "wallcrawler:{default}:epoch").Err(); err == nil {
			return n, nil
		}
	}
	return nil, errors.New("no server has our control keys")
}
