{{- define "wallcrawler.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "wallcrawler.select" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "wallcrawler.labels" -}}
{{ include "wallcrawler.select" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "wallcrawler.account" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "wallcrawler.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "wallcrawler.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "wallcrawler.secret" -}}
{{- .Values.secretEnv.existingSecret | default (printf "%s-env" (include "wallcrawler.name" .)) }}
{{- end }}

{{/* Seconds that a pod may sleep before SIGTERM; the action exists since Kubernetes 1.30. */}}
{{- define "wallcrawler.preStop" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}{{ int .Values.drain.preStopSeconds }}{{ else }}0{{ end }}
{{- end }}

{{/* Of cidrs, as JSON, those of the family of all. */}}
{{- define "wallcrawler.within" -}}
{{- $v6 := contains ":" .all }}
{{- $found := list }}
{{- range .cidrs }}{{ if eq (contains ":" .) $v6 }}{{ $found = append $found . }}{{ end }}{{ end }}
{{- toJson $found }}
{{- end }}

{{/* The port of a URL. */}}
{{- define "wallcrawler.urlPort" -}}
{{- $url := urlParse . }}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- end }}

{{/* Ports of the Redis that the settings name: a sentinel leads to a server at its own, and a cluster
of ElastiCache Serverless has one more, for reads. */}}
{{- define "wallcrawler.redisPorts" -}}
{{- $ports := list }}
{{- range splitList "," .REDIS_ENDPOINT }}
{{- $port := regexFind ":[0-9]+$" (trim .) | trimPrefix ":" | default "6379" | int }}
{{- $ports = append $ports (dict "port" $port) }}
{{- end }}
{{- if .REDIS_MASTER_NAME }}{{ $ports = append $ports (dict "port" 6379) }}{{ end }}
{{- if .REDIS_CLUSTER }}{{ $ports = append $ports (dict "port" 6380) }}{{ end }}
{{- uniq $ports | toJson }}
{{- end }}

{{/* What would only show when pods do not come up. */}}
{{- define "wallcrawler.check" -}}
{{- $c := .Values.config }}
{{- $known := .Files.Get "files/otel.json" | fromJson }} {{/* of OpenTelemetry's, those that api/traces reads; true: a secret */}}
{{- range .Files.Get "files/settings.json" | fromJsonArray }}{{ $setting := . }}{{ range .env }}{{ $known = set $known . $setting.secret }}{{ end }}{{ end }}
{{- range $name, $value := $c }}
{{- if not (hasKey $known $name) }}{{ fail (printf "config.%s: there is no such setting, see docs/configuration.md" $name) }}{{ end }}
{{- if index $known $name }}{{ fail (printf "config.%s is a secret: it belongs in secretEnv" $name) }}{{ end }}
{{- if has $name (list "PORT" "REGISTER_PORT" "REPLICA_ID" "DRAIN_UNREADY" "DRAIN_TIMEOUT") }}{{ fail (printf "config.%s is the chart's to set: see drain and service" $name) }}{{ end }}
{{- end }}
{{- range $name, $value := .Values.secretEnv.values }}
{{- if not (index $known $name) }}{{ fail (printf "secretEnv.values.%s: there is no such secret setting" $name) }}{{ end }}
{{- end }}
{{- $missing := list }}
{{- range list "REGISTER_URL" "ECS_CLUSTER_NAME" "CONTAINER_TASK_DEF" "AWS_REGION" }}{{ if not (index $c .) }}{{ $missing = append $missing (printf "config.%s" .) }}{{ end }}{{ end }}
{{- if and (not $c.REDIS_ENDPOINT) (not .Values.redis.enabled) }}{{ $missing = append $missing "config.REDIS_ENDPOINT (or redis.enabled)" }}{{ end }}
{{- if $missing }}{{ fail (printf "missing: %s" (join ", " $missing)) }}{{ end }}
{{- if and $c.REDIS_ENDPOINT .Values.redis.enabled }}{{ fail "config.REDIS_ENDPOINT and redis.enabled are both set: give one" }}{{ end }}
{{- $s := .Values.secretEnv }}
{{- if and $s.existingSecret $s.values }}{{ fail "secretEnv.existingSecret and secretEnv.values are both set: give one" }}{{ end }}
{{- if not $s.existingSecret }}
{{- if not (or $s.values.JWT_SECRET $s.values.JWE_SECRET $c.JWT_SECRET_ARN $c.JWE_SECRET_ARN) }}{{ fail "no secret for session tokens: set secretEnv.existingSecret, or config.JWT_SECRET_ARN or JWE_SECRET_ARN, or secretEnv.values.JWT_SECRET" }}{{ end }}
{{- if not (or $s.values.API_KEYS $c.API_KEYS_SECRET_ARN) }}{{ fail "no API keys: set secretEnv.existingSecret, config.API_KEYS_SECRET_ARN, or secretEnv.values.API_KEYS" }}{{ end }}
{{- if and .Values.redis.enabled (not $s.values.REDIS_PASSWORD) }}{{ fail "redis.enabled needs a password: set secretEnv.values.REDIS_PASSWORD, or put REDIS_PASSWORD in secretEnv.existingSecret" }}{{ end }}
{{- end }}
{{- if gt (add .Values.drain.unreadySeconds .Values.drain.timeoutSeconds) 110 }}{{ fail "drain.unreadySeconds and drain.timeoutSeconds may be 110 together" }}{{ end }}
{{- $policy := .Values.networkPolicy }}
{{- if $policy.enabled }}
{{- if not $policy.containers }}{{ fail "networkPolicy.containers is empty: the service could not reach its browsers" }}{{ end }}
{{- if and $c.REDIS_ENDPOINT (not $policy.redis) }}{{ fail "networkPolicy.redis is empty: the service could not reach config.REDIS_ENDPOINT" }}{{ end }}
{{- if and $c.OTEL_EXPORTER_OTLP_ENDPOINT (not $policy.collector) }}{{ fail "networkPolicy.collector is empty: traces could not reach config.OTEL_EXPORTER_OTLP_ENDPOINT" }}{{ end }}
{{- if and .Values.ingress.enabled (not $policy.loadBalancers) }}{{ fail "networkPolicy.loadBalancers is empty: the ingress could not reach the service" }}{{ end }}
{{- if and (eq .Values.service.type "LoadBalancer") (not $policy.loadBalancers) }}{{ fail "networkPolicy.loadBalancers is empty: the service's load balancer could not reach it" }}{{ end }}
{{- if and .Values.registration.enabled (eq .Values.registration.type "LoadBalancer") (not $policy.registrationBalancers) }}{{ fail "networkPolicy.registrationBalancers is empty: registrations could not reach the service" }}{{ end }}
{{- if and .Values.serviceMonitor.enabled (not $policy.prometheus) }}{{ fail "networkPolicy.prometheus is empty: the ServiceMonitor's Prometheus could not scrape" }}{{ end }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not (or .Values.autoscaling.clientsPerReplica .Values.autoscaling.cpuPercent)) }}{{ fail "autoscaling has nothing to go by: set clientsPerReplica or cpuPercent" }}{{ end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}{{ fail "ingress.host is empty" }}{{ end }}
{{- end }}
