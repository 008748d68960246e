package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

const (
	metadataTimeout = 2 * time.Second
	metadataTries   = 5
	metadataRetry   = 500 * time.Millisecond
)

// findSelf fills in where others reach this replica, if the configuration leaves that to the
// task metadata endpoint: other replicas at port, containers at registerPort.
func (o *options) findSelf(ctx context.Context, metadata, port, registerPort string) error {
	if metadata == "" || o.fleet.RegisterURL != "" && o.replicaAddr != "" {
		return nil
	}
	addr, err := taskAddress(ctx, metadata)
	if err != nil && o.fleet.RegisterURL == "" {
		return fmt.Errorf("REGISTER_URL is not set, and this task's address is not known: %w", err)
	}
	if err != nil {
		o.log.Warn("task metadata unavailable: other replicas cannot pass clients on to this one", "error", err)
		return nil
	}
	if o.fleet.RegisterURL == "" {
		o.fleet.RegisterURL = "http://" + net.JoinHostPort(addr.String(), registerPort)
		o.log.Warn("containers will register at this replica's own address: set REGISTER_URL to that of the load balancer", "url", o.fleet.RegisterURL)
	}
	if o.replicaAddr == "" {
		o.replicaAddr = net.JoinHostPort(addr.String(), port)
	}
	return nil
}

// taskAddress asks ECS for the address of the task that this process is in.
func taskAddress(ctx context.Context, metadata string) (addr netip.Addr, err error) {
	client := &http.Client{Timeout: metadataTimeout, Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	for try := range metadataTries {
		if try > 0 {
			wait(ctx, metadataRetry)
		}
		if addr, err = askMetadata(ctx, client, metadata); err == nil || ctx.Err() != nil {
			return addr, err
		}
	}
	return addr, err
}

func askMetadata(ctx context.Context, client *http.Client, metadata string) (netip.Addr, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(metadata, "/")+"/task", nil)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("asking the task metadata endpoint: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("asking the task metadata endpoint: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return netip.Addr{}, fmt.Errorf("the task metadata endpoint answered %d", resp.StatusCode)
	}
	var task struct {
		Containers []struct {
			Networks []struct{ IPv4Addresses []string }
		}
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&task); err != nil {
		return netip.Addr{}, fmt.Errorf("reading the task metadata: %w", err)
	}
	for _, c := range task.Containers {
		for _, n := range c.Networks {
			for _, text := range n.IPv4Addresses {
				if addr, err := netip.ParseAddr(text); err == nil {
					return addr, nil
				}
			}
		}
	}
	return netip.Addr{}, errors.New("the task metadata names no address")
}

// tellWeakness names at the start what was configured and is weaker than the rule, and what
// has no effect.
func (o *options) tellWeakness(c *config, log *slog.Logger) {
	if c.GetString("container_token") != "" {
		log.Warn("containers that were not launched here are let in by CONTAINER_TOKEN and CONTAINER_CIDRS: any of them can speak for any other",
			"networks", o.containerCIDRs)
	}
	if c.GetString("api_keys_arn") != "" {
		log.Info("API_KEYS_ARN is not used: API keys come from API_KEYS_SECRET_ARN or API_KEYS")
	}
	if c.GetBool("expose_task_arn") {
		log.Warn("tasks' ARNs are written into session documents: whoever reads those may stop tasks with sessions of others")
	}
}
