package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wallcrawler/wallcrawler/agent"
)

func newAgent() *cobra.Command {
	return &cobra.Command{
		Use:   "agent",
		Short: "Run the container side: one Chromium per session",
		Long: `Run the container side, inside an ECS task: register, serve the link, and run one Chromium per
session. It is configured by the environment that the service gives the task; "wallcrawler
config --agent" lists every setting.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(agentSettings(), "", os.Environ())
			if err != nil {
				return err
			}
			log, err := newLogger(os.Stderr, c.GetString("log_level"), false)
			if err != nil {
				return err
			}
			shown, err := readCertificate(c.GetString("tls_cert"), c.GetString("tls_key"))
			if err != nil {
				return err
			}
			return agent.Run(cmd.Context(), agent.Config{
				ContainerID: c.GetString("container_id"), RegisterURL: c.GetString("register_url"), Token: agent.Secret(c.GetString("token")),
				MaxSessions: c.GetInt("max_sessions"), Version: versionText(), Host: c.GetString("listen_host"), Port: c.GetInt("port"),
				MetadataURL: c.GetString("metadata"), Browser: c.GetString("browser"), BrowserArgs: strings.Fields(c.GetString("browser_args")),
				NoSandbox: c.GetBool("no_sandbox"), Warm: c.GetInt("warm"), WorkDir: c.GetString("work_dir"),
				DrainTimeout: c.GetDuration("drain_timeout"), ExitOnStdinEOF: c.GetBool("stdin_eof"), TLS: shown.config(log), Log: log,
			})
		},
	}
}
