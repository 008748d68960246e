package api_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/wallcrawler/wallcrawler/state"
)

// While a store is rebuilt its containers come back: the rebuild waits for them. Nothing else is
// begun.
func TestContainersRegisterWhileTheStoreIsRebuilt(t *testing.T) {
	h := newHouse(t, withSharedToken("127.0.0.0/8"))
	known := h.container("cnt_known", 4)
	if a := h.call("POST", "/internal/register", shareBody("cnt_shared", "127.0.0.7", "8080"), "X-Container-Token", sharedToken); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	h.until("the mirror has both", func() bool { return len(h.mirror.Containers()) == 2 })
	h.store.Wipe()
	h.mirror.Relist()
	h.until("the loss is known, and what is remembered is back", func() bool {
		_, err := h.store.Container(t.Context(), "cnt_shared")
		return err == nil && h.mirror.Trouble() != ""
	})

	register := func(body, token string) reply {
		return h.call("POST", "/internal/register", body, "X-Container-Token", token)
	}
	again := register(registration("containerId", `"cnt_known"`, "bootId", `"boot-cnt_known"`, "ip", `"127.0.0.9"`), h.containers.Token("cnt_known"))
	if again.status != http.StatusOK || again.fields(t)["ownerSeq"] != float64(known.OwnerSeq+1) {
		t.Errorf("a known container: %d %s", again.status, again.body)
	}
	// Launched by somebody of whom nobody remembers anything: its token is proof.
	for i := range 100 {
		id := fmt.Sprintf("cnt_forgotten_%d", i)
		if a := register(registration("containerId", `"`+id+`"`), h.containers.Token(id)); a.status != http.StatusOK {
			t.Fatalf("a container that we have launched: %d %s", a.status, a.body)
		}
	}
	if a := register(shareBody("cnt_shared", "127.0.0.7", "8080"), sharedToken); a.status != http.StatusOK {
		t.Errorf("a known container that we did not launch: %d %s", a.status, a.body)
	}
	wantError(t, register(shareBody("cnt_new", "127.0.0.7", "8080"), sharedToken), http.StatusServiceUnavailable, "unavailable")
	wantError(t, register(registration("containerId", `"cnt_bad"`), h.containers.Token("cnt_other")), http.StatusUnauthorized, "unauthorized")
	if h.mirror.Trouble() == "" {
		t.Fatal("the rebuild was over before anything was asked")
	}
	if a := h.alice("POST", "/v1/sessions", `{}`); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("a creation: %d %s", a.status, a.body)
	}
	c, err := h.store.Container(t.Context(), "cnt_known")
	must(t, err)
	if c.Phase != state.ContainerReady || c.BootID != known.BootID {
		t.Errorf("the known container is %+v", c)
	}

	h.server.SetDraining()
	wantError(t, register(registration("containerId", `"cnt_known"`), h.containers.Token("cnt_known")),
		http.StatusServiceUnavailable, "draining")
}
