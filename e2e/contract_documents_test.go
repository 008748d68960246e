package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The documents of the Lambdas, and the other keys that they know.
func TestContractDocuments(t *testing.T) {
	w := startOriginal(t, nil, nil)

	t.Run("a wish is served, and nothing of it is changed but what is ours", func(t *testing.T) {
		id := w.id()
		text := w.wish(t, id, `, "big":9007199254740993,"empty":[], "nested" : {"b":1,"a":"\u00e9\/"},"browserSettings":{"viewport":{"width":640,"height":480}}`, time.Hour)
		w.awaitStatus(t, id, "ready")
		now := w.redis.get(t, "session:"+id)
		if want := strings.Replace(text, `"status":"pending"`, `"status":"ready"`, 1); !strings.HasPrefix(now, strings.TrimSuffix(want, "}")) {
			t.Errorf("it was\n%s\nand is\n%s", text, now)
		}
		if ttl := w.redis.client.TTL(t.Context(), "session:"+id).Val(); ttl > time.Hour || ttl < 50*time.Minute {
			t.Errorf("it lives for %s, not for an hour", ttl)
		}
		order := seen(t, w.home(t, id), "CREATE_SESSION", id)
		want := fmt.Sprintf(`{"type":"CREATE_SESSION","sessionId":%q,"userId":"user_dev-key-","options":{"viewport":{"width":640,"height":480}}}`, id)
		if string(order.Raw) != want {
			t.Errorf("the container was told %s", order.Raw)
		}
		for _, name := range []string{"taskArn", "containerInfo", "privateIp"} {
			if value, there := w.document(t, id)[name]; there {
				t.Errorf("%s is %v: delete-session would stop the task", name, value)
			}
		}
	})

	t.Run("lastActivity is fresh while a client is connected", func(t *testing.T) {
		id := w.ready(t)
		client := w.enter(t, id)
		client.wantsEcho("1", `{"id":1,"method":"A"}`)
		eventually(t, 60*time.Second, "lastActivity is written", func() error {
			text, _ := w.document(t, id)["lastActivity"].(string)
			at, err := time.Parse("2006-01-02T15:04:05.000Z", text)
			if err == nil && time.Since(at) > time.Minute {
				err = fmt.Errorf("it is %s", text)
			}
			return err
		})
	})

	for status, at := range map[string]string{"terminated": "terminatedAt", "cleaned": "cleanedAt"} {
		t.Run(status+" ends a session", func(t *testing.T) {
			id := w.ready(t)
			client, home := w.enter(t, id), w.home(t, id)
			w.finish(t, id, status, at)
			client.wantsClose(1000, "released")
			if m := seen(t, home, "DESTROY_SESSION", id); string(m.Raw) != fmt.Sprintf(`{"type":"DESTROY_SESSION","sessionId":%q}`, id) {
				t.Errorf("the container was told %s", m.Raw)
			}
			eventually(t, 30*time.Second, "its note is gone", func() error {
				if home.Holds(id) {
					return errors.New("it is held")
				}
				return nil
			})
			if now := w.document(t, id)["status"]; now != status {
				t.Errorf("the Lambda's last word was overwritten with %v", now)
			}
			if ttl := w.redis.client.TTL(t.Context(), "session:"+id).Val(); ttl > 300*time.Second || ttl <= 0 {
				t.Errorf("it lives for %s, not for 300 s", ttl)
			}
			_, resp, err := w.tryOpen(t, id, w.token(t, id))
			if err == nil || resp == nil || resp.StatusCode != http.StatusGone {
				t.Errorf("a client of an ended session gets %v, %v", resp, err)
			}
		})
	}

	t.Run("a wish that is withdrawn at once", func(t *testing.T) {
		id := w.id()
		w.wish(t, id, "", time.Hour)
		w.finish(t, id, "terminated", "terminatedAt")
		probe := w.ready(t) // whoever came later has been served
		w.enter(t, probe)
		eventually(t, 30*time.Second, "no container holds it", func() error {
			for _, c := range w.fleet.containers {
				if c.Holds(id) {
					return errors.New("one does")
				}
			}
			return nil
		})
		if now := w.document(t, id)["status"]; now != "terminated" {
			t.Errorf("its status is %v", now)
		}
	})

	t.Run("expiry", func(t *testing.T) {
		id := w.id()
		w.wish(t, id, "", 4*time.Second)
		client := w.open(t, id)
		client.wantsClose(1000, "deadline")
	})

	t.Run("a document that is evicted before its time is written again", func(t *testing.T) {
		id := w.ready(t)
		client := w.enter(t, id)
		if err := w.redis.client.Del(t.Context(), "session:"+id).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 60*time.Second, "the document is back", func() error {
			n, err := w.redis.client.Exists(t.Context(), "session:"+id).Result()
			if err == nil && n == 0 {
				err = errors.New("it is not")
			}
			return err
		})
		if ttl := w.redis.client.TTL(t.Context(), "session:"+id).Val(); ttl > time.Hour || ttl < 50*time.Minute {
			t.Errorf("it lives for %s, not for what remained of an hour", ttl)
		}
		client.wantsEcho("1", `{"id":1,"method":"A"}`)
		w.awaitStatus(t, id, "ready")
	})

	t.Run("edits of a Lambda are never overwritten", func(t *testing.T) {
		id := w.id()
		w.wish(t, id, "", time.Hour)
		for n := range 100 {
			// Read, modify, write, without a look at what came in between.
			fields := w.document(t, id)
			fields["edit"] = n
			text, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			w.write(t, id, string(text), time.Hour)
			if got, _ := w.document(t, id)["edit"].(float64); int(got) != n {
				t.Fatalf("edit %d was overwritten with %v", n, got)
			}
		}
		w.awaitStatus(t, id, "ready")
		if got, _ := w.document(t, id)["edit"].(float64); got != 99 {
			t.Errorf("the last edit was overwritten with %v", got)
		}
	})

	t.Run("what is no document is left alone", func(t *testing.T) {
		w.write(t, "ses_broken", `{"sessionId":`, time.Hour)
		w.ready(t)
		if text := w.redis.get(t, "session:ses_broken"); text != `{"sessionId":` {
			t.Errorf("it is now %s", text)
		}
		w.redis.client.Del(t.Context(), "session:ses_broken")
	})

	t.Run("the keys that outsiders know", func(t *testing.T) {
		id := w.ready(t)
		keys, err := w.redis.client.Keys(t.Context(), "session:*").Result()
		if err != nil || len(keys) == 0 {
			t.Fatal(keys, err)
		}
		for _, key := range keys {
			w.document(t, strings.TrimPrefix(key, "session:"))
		}
		keys, _ = w.redis.client.Keys(t.Context(), "*").Result()
		for _, key := range keys {
			known := strings.HasPrefix(key, "session:") || strings.HasPrefix(key, "wallcrawler:") || key == "pool:state" ||
				strings.HasPrefix(key, "container:") && (strings.HasSuffix(key, ":health") || strings.HasSuffix(key, ":sessions"))
			if !known {
				t.Errorf("there is a key %s", key)
			}
		}
		container := w.redis.client.HGet(t.Context(), "wallcrawler:{default}:session:"+id, "container").Val()
		eventually(t, 60*time.Second, "the container's health is there", func() error {
			var health struct {
				Status, ContainerID   string
				Sessions, MaxSessions *int
				CPU, Memory, Uptime   *float64
			}
			text, err := w.redis.client.Get(t.Context(), "container:"+container+":health").Result()
			if err == nil {
				err = json.Unmarshal([]byte(text), &health)
			}
			if err == nil && (health.Status != "healthy" || health.ContainerID != container || health.Sessions == nil || *health.Sessions < 1 ||
				health.MaxSessions == nil || *health.MaxSessions != 4 || health.CPU == nil || health.Memory == nil || health.Uptime == nil) {
				err = errors.New("it is " + text)
			}
			return err
		})
		if ttl := w.redis.client.TTL(t.Context(), "container:"+container+":health").Val(); ttl <= 0 || ttl > time.Minute {
			t.Errorf("the container's health lives for %s", ttl)
		}
	})

	t.Run("pool:desired is obeyed, and pool:state says so", func(t *testing.T) {
		type pool struct {
			TotalContainers, TotalSessions, Min, Max, Warm int
			Timestamp                                      int64
			Paused                                         bool
		}
		await := func(what string, is func(pool) bool) {
			t.Helper()
			eventually(t, 60*time.Second, what, func() error {
				var p pool
				text := w.redis.get(t, "pool:state")
				if err := json.Unmarshal([]byte(text), &p); err != nil {
					return err
				}
				if !is(p) || p.Timestamp == 0 {
					return errors.New("it is " + text)
				}
				return nil
			})
		}
		desire := func(text string) { w.redis.client.Set(t.Context(), "pool:desired", text, 0) }
		await("the configuration is in force", func(p pool) bool { return p.Min == 1 && p.Max == 3 && p.TotalSessions > 0 })
		desire(`{"min":3}`)
		await("there are three containers", func(p pool) bool { return p.Min == 3 && p.TotalContainers == 3 })
		desire(`{"min":-1}`)
		eventually(t, 60*time.Second, "an event tells of the bad value", func() error {
			entries, err := w.redis.client.XRevRangeN(t.Context(), "wallcrawler:{default}:events", "+", "-", 200).Result()
			for _, e := range entries {
				if e.Values["kind"] == "pool" && e.Values["reason"] == "refused" {
					return nil
				}
			}
			return errors.Join(err, fmt.Errorf("%d events do not", len(entries)))
		})
		desire(`{"min":3,"paused":true}`)
		await("it is paused, and the last good minimum stays", func(p pool) bool { return p.Min == 3 && p.Paused })
		w.redis.client.Del(t.Context(), "pool:desired")
		await("the configuration is in force again", func(p pool) bool { return p.Min == 1 && !p.Paused })
	})

	for _, fault := range w.fleet.faults() {
		t.Error(fault)
	}
}

// With EXPOSE_TASK_ARN the Lambdas find the names that they look for.
func TestContractExposedTask(t *testing.T) {
	w := startOriginal(t, map[string]string{"EXPOSE_TASK_ARN": "true"}, nil)
	id := w.ready(t)
	doc := w.document(t, id)
	var c container
	home := w.redis.client.HGet(t.Context(), "wallcrawler:{default}:session:"+id, "container").Val()
	for _, other := range w.containers(t) {
		if other.ID == home {
			c = other
		}
	}
	info, _ := doc["containerInfo"].(map[string]any)
	ip, _ := doc["privateIp"].(string)
	if c.TaskARN == "" || doc["taskArn"] != c.TaskARN || info["taskArn"] != c.TaskARN || !strings.HasPrefix(c.Addr, ip+":") || ip == "" {
		t.Errorf("the document is %v, and the container %+v", doc, c)
	}
}
