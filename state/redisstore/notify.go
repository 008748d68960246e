package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
)

const (
	probeWait    = time.Second      // within which a probe's notification arrives
	probeEvery   = 20 * time.Second // between probes; a connection that is silent for two is dead
	probeTTL     = 5 * time.Second
	mastersEvery = 15 * time.Second // how often a cluster's masters are listed
	probeTries   = 4096             // names to find one that a certain master keeps
)

// wantedEvents are the notifications that show every change of a document: keyspace
// channels, strings, generic commands, expiry, eviction.
const wantedEvents = "K$gxe"

// enableKeyspaceEvents adds what we want to what is configured. Managed servers refuse, and
// then the relist does without.
func (s *Store) enableKeyspaceEvents(ctx context.Context) {
	enable := func(ctx context.Context, c *redis.Client) error {
		const name = "notify-keyspace-events"
		got, err := c.ConfigGet(ctx, name).Result()
		if err != nil {
			return err
		}
		flags := got[name]
		for _, f := range wantedEvents {
			if strings.ContainsRune(flags, f) || strings.ContainsRune(flags, 'A') && f != 'K' {
				continue
			}
			flags += string(f)
		}
		if flags == got[name] {
			return nil
		}
		return c.ConfigSet(ctx, name, flags).Err()
	}
	if err := s.eachMaster(ctx, enable); err != nil {
		s.log.Warn("keyspace notifications not enabled", "error", err)
	}
}

// eachMaster calls do for every node that takes writes.
func (s *Store) eachMaster(ctx context.Context, do func(context.Context, *redis.Client) error) error {
	switch c := s.client.(type) {
	case *redis.ClusterClient:
		return c.ForEachMaster(ctx, do)
	case *redis.Client:
		return do(ctx, c)
	}
	return fmt.Errorf("client %T is not for one server, Sentinel or a cluster", s.client)
}

// followDocuments listens to every node for changes of documents until ctx ends.
func (s *Store) followDocuments(ctx context.Context, in *inbox) {
	s.persist(ctx, "notifications lost", func() error {
		defer in.expectNodes(nil)
		nodes, err := s.masters(ctx)
		if err != nil {
			return err
		}
		in.expectNodes(addresses(nodes))
		return s.listenTo(ctx, nodes, in)
	})
}

// masters lists the nodes that take writes, by address.
func (s *Store) masters(ctx context.Context) ([]*redis.Client, error) {
	var mu sync.Mutex
	var nodes []*redis.Client
	err := s.eachMaster(ctx, func(_ context.Context, c *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, c)
		return nil
	})
	slices.SortFunc(nodes, func(a, b *redis.Client) int { return strings.Compare(a.Options().Addr, b.Options().Addr) })
	return nodes, err
}

func addresses(nodes []*redis.Client) []string {
	var list []string
	for _, node := range nodes {
		list = append(list, node.Options().Addr)
	}
	return list
}

// listenTo listens to these nodes until one of them is lost or there are others.
func (s *Store) listenTo(ctx context.Context, nodes []*redis.Client, in *inbox) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var listeners sync.WaitGroup
	defer listeners.Wait()
	defer cancel(nil)
	for _, node := range nodes {
		listeners.Go(func() {
			if err := s.listen(ctx, node, in); err != nil {
				cancel(err)
			}
		})
	}
	if s.cluster == nil {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	tick := time.NewTicker(mastersEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		now, err := s.masters(ctx)
		if err != nil {
			return err
		}
		if !slices.Equal(addresses(now), addresses(nodes)) {
			return errors.New("the cluster has other masters now")
		}
	}
}

// listen subscribes to one node's notifications and passes them on until ctx ends or the
// connection is lost. Whether any arrive is found out by making one, again and again.
func (s *Store) listen(ctx context.Context, node *redis.Client, in *inbox) error {
	addr := node.Options().Addr
	probe, err := s.probeKey(ctx, node)
	if err != nil {
		return err
	}
	channel := "__keyspace@" + strconv.Itoa(s.db) + "__:"
	sub := node.PSubscribe(ctx, channel+documentPrefix+"*", channel+desiredKey, channel+probe)
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer func() {
		if stop() {
			_ = sub.Close()
		}
	}()
	if err := subscribed(ctx, sub, 3); err != nil {
		if _, answered := errors.AsType[redis.Error](err); answered {
			// Not allowed here, and it will not be: the relist does it alone.
			in.setNotified(addr, false)
			<-ctx.Done()
			return nil
		}
		return err
	}
	in.add(state.Hint{Kind: state.KindAll})

	var probed, heard time.Time // when a probe was last made, and its notification heard
	alive := time.Now()         // when anything was last heard, pongs too
	for {
		if time.Since(alive) > 2*probeEvery {
			return fmt.Errorf("node %s has fallen silent", addr)
		}
		if time.Since(probed) >= probeEvery {
			if err := s.makeProbe(ctx, node, probe); err != nil {
				return err
			}
			if err := sub.Ping(ctx); err != nil {
				return err
			}
			probed = time.Now()
		}
		wait := probeEvery - time.Since(probed)
		if heard.Before(probed) {
			wait = min(wait, probeWait)
		}
		message, err := sub.ReceiveTimeout(ctx, max(wait, time.Millisecond))
		if ctx.Err() != nil {
			return nil
		}
		var slow net.Error
		switch {
		case errors.As(err, &slow) && slow.Timeout():
			if heard.Before(probed) {
				in.setNotified(addr, false)
				heard = probed // asked and answered: nothing came
			}
			continue
		case err != nil:
			return err
		}
		alive = time.Now()
		m, ok := message.(*redis.Message)
		if !ok {
			continue
		}
		key := strings.TrimPrefix(m.Channel, channel)
		if key == probe {
			heard = time.Now()
			in.setNotified(addr, true)
			continue
		}
		if key == desiredKey {
			in.add(state.Hint{Kind: state.KindPool})
			continue
		}
		if id, ok := documentID(key); ok && state.ValidID(id) {
			in.add(state.Hint{Kind: state.KindDocument, ID: id})
		}
	}
}

// subscribed waits until so many subscriptions are confirmed.
func subscribed(ctx context.Context, sub *redis.PubSub, want int) error {
	for range want {
		got, err := sub.ReceiveTimeout(ctx, callTimeout)
		if err != nil {
			return err
		}
		if _, ok := got.(*redis.Subscription); !ok {
			return fmt.Errorf("subscribing was answered with %T", got)
		}
	}
	return nil
}

// makeProbe changes a key that nobody reads.
func (s *Store) makeProbe(ctx context.Context, node *redis.Client, probe string) error {
	if err := node.Set(ctx, probe, "1", probeTTL).Err(); err != nil {
		return err
	}
	return node.Del(ctx, probe).Err()
}

// probeKey names a key that lives on this node.
func (s *Store) probeKey(ctx context.Context, node *redis.Client) (string, error) {
	if s.cluster == nil {
		return s.keys.probe("0"), nil
	}
	for n := range probeTries {
		key := s.keys.probe(strconv.Itoa(n))
		home, err := s.cluster.MasterForKey(ctx, key)
		if err != nil {
			return "", err
		}
		if home.Options().Addr == node.Options().Addr {
			return key, nil
		}
	}
	return "", fmt.Errorf("node %s keeps no slots", node.Options().Addr)
}
