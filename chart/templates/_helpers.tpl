{{- define "firsthop.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "firsthop.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "firsthop.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "firsthop.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* What selects the pods of one part: (dict "root" $ "part" "edge") */}}
{{- define "firsthop.selector" -}}
app.kubernetes.io/name: {{ include "firsthop.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "firsthop.labels" -}}
{{ include "firsthop.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "firsthop.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "firsthop.secret" -}}
{{ .Values.secrets.existingSecret | default (printf "%s-secrets" (include "firsthop.fullname" .)) }}
{{- end }}

{{/* What stands before the port in an address of the pod's own. */}}
{{- define "firsthop.podAddress" -}}
{{ if eq .Values.ipFamily "IPv6" }}[$(POD_IP)]{{ else }}$(POD_IP){{ end }}
{{- end }}

{{- define "firsthop.redisUrl" -}}
{{ if .Values.redis.enabled }}redis://{{ include "firsthop.fullname" . }}-redis.{{ .Release.Namespace }}:6379/0{{ else }}{{ .Values.redis.url }}{{ end }}
{{- end }}

{{/* The new text of cluster.toml, as firsthop keys new writes it: a secret for links, and a key for ufrags. */}}
{{- define "firsthop.newKeys" -}}
link = "{{ randBytes 32 | sha256sum }}"

[[ufrag]]
id = 1
key = "{{ randBytes 32 | sha256sum | trunc 32 }}"
made = {{ dateInZone "2006-01-02T15:04:05Z" now "UTC" }}
{{- end }}

{{/* The sections that edges and transceivers have in common. */}}
{{- define "firsthop.sharedConfig" -}}
{{- $directory := dict "redis" (include "firsthop.redisUrl" .) -}}
{{- if .Values.redis.auth }}{{ $_ := set $directory "password_file" "/run/secrets/firsthop/redis-password" }}{{ end -}}
{{- if .Values.redis.caSecret }}{{ $_ := set $directory "ca_file" "/run/secrets/redis-ca/ca.crt" }}{{ end -}}
{{- $cluster := dict "keys" "/run/secrets/firsthop/cluster.toml" -}}
{{- toJson (dict "cluster" $cluster "directory" $directory "log" (dict "format" "json")) -}}
{{- end }}

{{/* firsthop.toml of the edges; of one node, where .advertise is its address. */}}
{{- define "firsthop.edgeToml" -}}
{{- $values := .root.Values -}}
{{- $edge := dict "drain_s" (int $values.edge.drainSeconds) "api_keys" "/run/secrets/firsthop/api-keys" -}}
{{- $cores := list -}}
{{- range $values.edge.cores }}{{ $cores = append $cores (int .) }}{{ end -}}
{{- if $cores }}{{ $_ := set $edge "cores" $cores }}{{ end -}}
{{- if include "firsthop.xdp" .root }}{{ $_ := set $edge "interface" $values.edge.xdp.interface }}{{ $_ := set $edge "pins" "/run/bpf/firsthop" }}{{ end -}}
{{- if $values.tls.secretName -}}
{{- $_ := set $edge "tls_certificate" "/run/secrets/tls/tls.crt" }}{{ $_ := set $edge "tls_key" "/run/secrets/tls/tls.key" -}}
{{- end -}}
{{- if .advertise }}{{ $_ := set $edge "advertise" .advertise }}{{ end -}}
{{- $all := mergeOverwrite (include "firsthop.sharedConfig" .root | fromJson) (dict "edge" $edge) (omit (deepCopy $values.config) "transceiver") -}}
{{ toToml $all }}
{{- end }}

{{- define "firsthop.transceiverToml" -}}
{{- $ours := dict "drain_s" (int .Values.transceiver.drainSeconds) -}}
{{- $all := mergeOverwrite (include "firsthop.sharedConfig" . | fromJson) (dict "transceiver" $ours) (omit (deepCopy .Values.config) "edge") -}}
{{ toToml $all }}
{{- end }}

{{- define "firsthop.xdp" -}}
{{ if and (eq .Values.edge.exposure "host") .Values.edge.xdp.interface }}yes{{ end }}
{{- end }}

{{/* The part of a pod that edges and transceivers have in common. */}}
{{- define "firsthop.pod" -}}
serviceAccountName: {{ include "firsthop.fullname" . }}
automountServiceAccountToken: false
# Kubernetes would set FIRSTHOP_..._SERVICE_HOST, which would be unknown keys of the configuration.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The container's image, and what a log is for. */}}
{{- define "firsthop.container" -}}
image: {{ include "firsthop.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
# Why it does not start, in one line, where people look first.
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{/* What both mount. Secrets are root's, and the pod's group may read them. */}}
{{- define "firsthop.volumes" -}}
- name: run
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 256Mi}
- name: secrets
  secret:
    secretName: {{ include "firsthop.secret" . }}
    defaultMode: 0440
{{- with .Values.redis.caSecret }}
- name: redis-ca
  secret: {secretName: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end }}

{{- define "firsthop.mounts" -}}
- {name: run, mountPath: /run/firsthop}
- {name: tmp, mountPath: /tmp}
- {name: secrets, mountPath: /run/secrets/firsthop, readOnly: true}
{{- if .Values.redis.caSecret }}
- {name: redis-ca, mountPath: /run/secrets/redis-ca, readOnly: true}
{{- end }}
{{- end }}

{{/* Who may come to links and Redis: pods of these parts, and the nodes where edges are on their network.
     (dict "root" $ "parts" (list "transceiver")) */}}
{{- define "firsthop.peers" -}}
{{- $root := .root -}}
{{- $host := eq $root.Values.edge.exposure "host" -}}
{{- if not (and $host (empty $root.Values.networkPolicy.nodeCIDRs)) }}
from:
  {{- range .parts }}
  - podSelector:
      matchLabels:
        {{- include "firsthop.selector" (dict "root" $root "part" .) | nindent 8 }}
  {{- end }}
  {{- if $host }}
  {{- range $root.Values.networkPolicy.nodeCIDRs }}
  - ipBlock: {cidr: {{ . | quote }}}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "firsthop.scraped" -}}
{{- if .root.Values.metrics.annotations }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- end }}
