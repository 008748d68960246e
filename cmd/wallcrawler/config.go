package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/viper"
)

// setting is one thing that can be configured, by a file, the environment or a default. Every
// name in env may also be given with the prefix WALLCRAWLER_.
type setting struct {
	section string // heading of this one and those after it, in the documentation
	key     string
	env     []string // the first is the name; the others are spellings that exist in the field
	value   any      // default; its type is the setting's
	unit    string   // of what a number counts, or how a text is written; may be empty for text
	secret  bool
	help    string
}

const envPrefix = "WALLCRAWLER_"

// clientEnv are the variables of ours that are no settings of a server.
var clientEnv = []string{"WALLCRAWLER_SERVER", "WALLCRAWLER_API_KEY", "WALLCRAWLER_CONFIG"}

// config is a set of settings as read, and where each value came from.
type config struct {
	*viper.Viper
	settings []setting
	source   map[string]string
}

// loadConfig reads the settings: defaults, then the file (if any), then the environment.
// Unknown keys in the file and unknown WALLCRAWLER_* variables are errors: a misspelt setting
// must not be a silent default.
func loadConfig(settings []setting, file string, environ []string) (*config, error) {
	c := &config{Viper: viper.New(), settings: settings, source: map[string]string{}}
	env := map[string]string{}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && value != "" {
			env[name] = value
		}
	}
	var errs []error
	known := slices.Clone(clientEnv)
	for _, s := range settings {
		c.SetDefault(s.key, s.value)
		c.source[s.key] = "default"
		for _, name := range s.env {
			known = append(known, envPrefix+name)
		}
	}
	if file != "" {
		c.SetConfigFile(file)
		if err := c.ReadInConfig(); err != nil {
			return nil, fmt.Errorf("reading the configuration file: %w", err)
		}
		for _, key := range c.AllKeys() {
			i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
			if i < 0 {
				errs = append(errs, fmt.Errorf("%s: unknown setting %q", file, key))
			} else if c.InConfig(key) {
				c.source[key] = file
			}
		}
	}
	for _, s := range settings {
		for _, name := range slices.Concat(prefixed(s.env), s.env) {
			if value, ok := env[name]; ok {
				c.Set(s.key, value)
				c.source[s.key] = "$" + name
				break
			}
		}
	}
	for _, name := range slices.Sorted(mapKeys(env)) {
		if strings.HasPrefix(name, envPrefix) && !slices.Contains(known, name) && !otherSettings(name) {
			errs = append(errs, fmt.Errorf("unknown variable %s: see wallcrawler config", name))
		}
	}
	errs = append(errs, c.checkTypes()...)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

// otherSettings tells whether a variable belongs to another command of this binary.
func otherSettings(name string) bool {
	return slices.ContainsFunc(slices.Concat(serveSettings(), agentSettings()), func(s setting) bool {
		return slices.Contains(prefixed(s.env), name)
	})
}

func prefixed(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = envPrefix + name
	}
	return out
}

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// shown is one effective setting as it may be printed.
type shown struct {
	Key    string `json:"key"`
	Env    string `json:"env"`
	Value  string `json:"value"`
	Source string `json:"source"`
	Help   string `json:"help"`
}

// show lists the effective settings with the secrets hidden.
func (c *config) show() []shown {
	out := make([]shown, 0, len(c.settings))
	for _, s := range c.settings {
		value := strings.Join(strings.Fields(fmt.Sprint(c.Get(s.key))), " ")
		if s.secret && c.GetString(s.key) != "" {
			value = "[hidden]"
		}
		out = append(out, shown{s.key, s.env[0], value, c.source[s.key], s.help})
	}
	return out
}

// list splits a comma list.
func (c *config) list(key string) []string {
	var out []string
	for part := range strings.SplitSeq(c.GetString(key), ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

func newConfig() *cobra.Command {
	var asJSON, forAgent bool
	var file, format string
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the effective configuration of serve (or of the agent), secrets hidden",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch format {
			case "":
			case "markdown":
				_, err := io.WriteString(cmd.OutOrStdout(), reference())
				return err
			case "json":
				return printJSON(cmd.OutOrStdout(), referenceEntries())
			default:
				return fmt.Errorf("--reference %s: use markdown or json", format)
			}
			settings := serveSettings()
			if forAgent {
				settings = agentSettings()
			}
			c, err := loadConfig(settings, configFile(file), os.Environ())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), c.show())
			}
			rows := [][]string{{"VARIABLE", "VALUE", "FROM", "WHAT"}}
			for _, s := range c.show() {
				rows = append(rows, []string{s.Env, s.Value, s.Source, s.Help})
			}
			printTable(cmd.OutOrStdout(), rows)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&format, "reference", "", "print all settings, their defaults and units instead: markdown, as in docs/configuration.md, or json (serve's)")
	cmd.Flags().BoolVar(&forAgent, "agent", false, "the agent's settings instead")
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML, TOML or JSON; default $WALLCRAWLER_CONFIG)")
	return cmd
}

// configFile is the file that a flag or the environment names.
func configFile(flag string) string {
	if flag != "" {
		return flag
	}
	return os.Getenv("WALLCRAWLER_CONFIG")
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// newLogger makes the process's logger: JSON for machines, text for people.
func newLogger(w io.Writer, level string, text bool) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: l, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(a.Value.Duration().String()) // in JSON too
		}
		return a
	}}
	if text {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}
