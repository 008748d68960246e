package deploy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// instruction is one of a Dockerfile's, its continued lines joined.
type instruction struct{ word, rest string }

func readDockerfile(t *testing.T, name string) []instruction {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	joined := strings.ReplaceAll(regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(string(text), ""), "\\\n", " ")
	var all []instruction
	for line := range strings.Lines(joined) {
		if word, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			all = append(all, instruction{word, strings.TrimSpace(rest)})
		}
	}
	return all
}

// TestDockerfiles lints what can be told without building.
func TestDockerfiles(t *testing.T) {
	words := []string{"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD", "VOLUME", "STOPSIGNAL"}
	for _, name := range []string{"Dockerfile", "Dockerfile.browser"} {
		t.Run(name, func(t *testing.T) {
			last := map[string]string{} // of the final stage
			stages := map[string]bool{}
			args := map[string]string{}
			for _, i := range readDockerfile(t, name) {
				if !slices.Contains(words, i.word) {
					t.Errorf("%s: no instruction that is meant to be here", i.word)
				}
				switch i.word {
				case "ARG":
					key, value, _ := strings.Cut(i.rest, "=")
					args[key] = value
				case "FROM":
					last = map[string]string{}
					fields := strings.Fields(i.rest)
					if len(fields) > 2 && fields[len(fields)-2] == "AS" {
						stages[fields[len(fields)-1]] = true
						fields = fields[:len(fields)-2]
					}
					base := fields[len(fields)-1]
					if key, ok := strings.CutPrefix(base, "${"); ok {
						base = args[strings.TrimSuffix(key, "}")]
					}
					if base != "scratch" && !regexp.MustCompile(`^[a-z.]+/[a-z/]+(:[\w.-]+|@sha256:[0-9a-f]{64})$`).MatchString(base) || strings.HasSuffix(base, ":latest") {
						t.Errorf("FROM %s: name registry, image and version", base)
					}
				case "COPY":
					if from, _, _ := strings.Cut(strings.TrimPrefix(i.rest, "--from="), " "); strings.HasPrefix(i.rest, "--from=") {
						if !stages[from] {
							t.Errorf("COPY %s: there is no such stage", i.rest)
						}
						break
					}
					sources := strings.Fields(i.rest)
					for _, source := range sources[:len(sources)-1] {
						if _, err := os.Stat(filepath.Join("..", source)); err != nil {
							t.Errorf("COPY %s: %v", i.rest, err)
						}
					}
				case "RUN":
					if strings.Contains(i.rest, "apt-get install") && (!strings.Contains(i.rest, "--no-install-recommends") || !strings.Contains(i.rest, "rm -rf /var/lib/apt/lists/*")) {
						t.Errorf("RUN %s: leaves things in the layer", i.rest)
					}
					if strings.Contains(i.rest, "curl") || strings.Contains(i.rest, "wget") {
						t.Errorf("RUN %s: fetches what nothing vouches for", i.rest)
					}
				}
				last[i.word] = i.rest
			}
			if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(last["USER"]) {
				t.Errorf("it runs as %q: Kubernetes' runAsNonRoot needs a number that is not 0", last["USER"])
			}
			for _, word := range []string{"ENTRYPOINT", "CMD"} {
				var exec []string
				if err := json.Unmarshal([]byte(last[word]), &exec); err != nil || len(exec) == 0 {
					t.Errorf("%s %s: a shell would stand between the signals and the program", word, last[word])
				}
			}
			text, err := os.ReadFile("../go.mod")
			if err != nil {
				t.Fatal(err)
			}
			wanted := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(text)
			if !strings.Contains(args["GO_IMAGE"], ":"+string(wanted[1])+".") {
				t.Errorf("it is built with %s, and go.mod asks for Go %s", args["GO_IMAGE"], wanted[1])
			}
		})
	}
}

// TestCompose checks compose.yaml as far as that goes without Docker.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile("compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type service struct {
		Image       string
		Build       struct{ Context, Dockerfile string }
		Command     []string
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		Healthcheck struct {
			Test              []string
			Interval, Timeout string
			Retries           int
			Start             string `yaml:"start_period"`
		}
		Volumes, Networks, Ports []string
		User                     string
		CapDrop                  []string `yaml:"cap_drop"`
		SecurityOpt              []string `yaml:"security_opt"`
		ReadOnly                 bool     `yaml:"read_only"`
		Tmpfs                    []string
		ShmSize                  string `yaml:"shm_size"`
		Init                     bool
		StopGracePeriod          string `yaml:"stop_grace_period"`
	}
	var c struct {
		Name     string
		Services map[string]service
		Networks map[string]struct{ Internal bool }
		Volumes  map[string]struct{}
	}
	in := yaml.NewDecoder(strings.NewReader(string(text)))
	in.KnownFields(true)
	if err := in.Decode(&c); err != nil {
		t.Fatal(err)
	}
	for name, s := range c.Services {
		if s.Build.Dockerfile != "" {
			if _, err := os.Stat(filepath.Join("compose", s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		} else if !regexp.MustCompile(`:[\w.-]+$`).MatchString(s.Image) || strings.HasSuffix(s.Image, ":latest") {
			t.Errorf("%s: the image %s has no version", name, s.Image)
		}
		if len(s.Healthcheck.Test) < 2 || s.Healthcheck.Test[0] != "CMD" {
			t.Errorf("%s has no health check", name)
		}
		for other, on := range s.DependsOn {
			if _, ok := c.Services[other]; !ok || on.Condition != "service_healthy" {
				t.Errorf("%s: does not wait for %s as it should", name, other)
			}
		}
		for _, network := range s.Networks {
			if _, ok := c.Networks[network]; !ok {
				t.Errorf("%s: there is no network %s", name, network)
			}
		}
		for _, volume := range s.Volumes {
			if from, _, _ := strings.Cut(volume, ":"); !strings.HasPrefix(from, ".") {
				if _, ok := c.Volumes[from]; !ok {
					t.Errorf("%s: there is no volume %s", name, from)
				}
			}
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s: %s is open to the network", name, port)
			}
		}
	}
	if s := c.Services["redis"]; slices.ContainsFunc(s.Networks, func(n string) bool { return !c.Networks[n].Internal }) || len(s.Ports) > 0 {
		t.Error("Redis has no password, and can be reached from outside")
	}
}
