{{- define "k2think.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels of an object. Takes a dict: root, component. */}}
{{- define "k2think.labels" -}}
{{ include "k2think.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "k2think.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "k2think.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "k2think.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "k2think.image" -}}
{{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}

{{/* The secret variables that the chart itself makes, as YAML. */}}
{{- define "k2think.secretValues" -}}
{{- $made := dict -}}
{{- $name := include "k2think.name" . -}}
{{- if .Values.postgresql.enabled -}}
{{- $password := required "postgresql.password: choose one, the chart makes none up" .Values.postgresql.password -}}
{{- $_ := set $made "K2THINK_DATABASE_URL" (printf "postgresql://k2think:%s@%s-postgresql:5432/k2think" (urlquery $password | replace "+" "%20") $name) -}}
{{- end -}}
{{- if and .Values.redis.enabled (not .Values.redis.aclSecret) -}}
{{- $password := required "redis.password: choose one, the chart makes none up" .Values.redis.password -}}
{{- $_ := set $made "K2THINK_BROKER_URL" (printf "redis://:%s@%s-redis:6379/0" (urlquery $password | replace "+" "%20") $name) -}}
{{- end -}}
{{- toYaml (merge (deepCopy .Values.secrets.values) $made) -}}
{{- end }}

{{/* What must hold before anything is rendered. */}}
{{- define "k2think.check" -}}
{{- if not .Values.secrets.existing -}}
{{- $values := include "k2think.secretValues" . | fromYaml -}}
{{- if not (hasKey $values "K2THINK_DATABASE_URL") -}}
{{- fail "no database: set secrets.existing, secrets.values.K2THINK_DATABASE_URL, or postgresql.enabled" -}}
{{- end -}}
{{- if not (or (hasKey $values "K2THINK_BROKER_URL") .Values.redis.aclSecret) -}}
{{- fail "no Redis: set secrets.existing, secrets.values.K2THINK_BROKER_URL, or redis.enabled" -}}
{{- end -}}
{{- end -}}
{{- $gateway := include "k2think.role" (dict "root" . "own" .Values.gateway) | fromYaml -}}
{{- if and (gt (int $gateway.replicas) 1) (not .Values.gateway.files.existingClaim) (ne .Values.gateway.files.accessMode "ReadWriteMany") -}}
{{- fail "gateways share their files: for more than one set gateway.files.accessMode to ReadWriteMany" -}}
{{- end -}}
{{- end }}

{{/* A role's values over the defaults, as YAML. Takes a dict: root, own. */}}
{{- define "k2think.role" -}}
{{- toYaml (mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy .own)) -}}
{{- end }}

{{- define "k2think.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "k2think.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Variables: settings for all, secrets for all, then the role's own. Takes a dict: root, role (values), component. */}}
{{- define "k2think.environment" -}}
envFrom:
  - configMapRef:
      name: {{ include "k2think.name" .root }}
  - secretRef:
      name: {{ default (include "k2think.name" .root) .root.Values.secrets.existing }}
  {{- range .role.secretNames }}
  - secretRef:
      name: {{ . }}
  {{- end }}
{{- with .role.settings }}
env:
  {{- range $name, $value := . }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A file that a process touches with each heartbeat: it exists once the process works, and grows old when it hangs. */}}
{{- define "k2think.probes" -}}
startupProbe:
  exec:
    command: ["test", "-f", "/tmp/alive"]
  periodSeconds: 2
  failureThreshold: 300
livenessProbe:
  exec:
    command: ["sh", "-c", "test $(($(date +%s) - $(stat -c %Y /tmp/alive))) -lt 120"]
  periodSeconds: 30
  failureThreshold: 2
{{- end }}

{{- define "k2think.gatewayProbes" -}}
startupProbe:
  httpGet:
    path: /health/live
    port: http
  periodSeconds: 2
  failureThreshold: 150
livenessProbe:
  httpGet:
    path: /health/live
    port: http
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /health/ready
    port: http
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{/* Deployment and PodDisruptionBudget, with a ScaledObject where wanted.
     Takes a dict: root, own (values), component, command (list of words), load (expression in PromQL). */}}
{{- define "k2think.deployment" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- $role := include "k2think.role" (dict "root" $root "own" .own) | fromYaml -}}
{{- $gateway := eq $component "gateway" -}}
{{- $name := printf "%s-%s" (include "k2think.name" $root) $component -}}
{{- $labels := dict "root" $root "component" $component -}}
{{- /* Gateways, intake and sweepers wait for others; no load says how many are needed. */ -}}
{{- $scaled := and $role.autoscaling.enabled .load -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  labels: {{- include "k2think.labels" $labels | nindent 4 }}
spec:
  {{- if not $scaled }}
  replicas: {{ $role.replicas }}
  {{- end }}
  selector:
    matchLabels: {{- include "k2think.selector" $labels | nindent 6 }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  template:
    metadata:
      labels:
        {{- include "k2think.labels" $labels | nindent 8 }}
        {{- with $root.Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/settings: {{ toJson (list $root.Values.settings $root.Values.shutdownSeconds) | sha256sum }}
        checksum/secrets: {{ include "k2think.secretValues" $root | sha256sum }}
        {{- with $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "k2think.serviceAccount" $root }}
      automountServiceAccountToken: false
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext: {{- include "k2think.podSecurity" $root | nindent 8 }}
      # What is not handed back by then is taken up when its lease runs out.
      terminationGracePeriodSeconds: {{ add $root.Values.shutdownSeconds 25 (ternary 5 0 $gateway) }}
      containers:
        - name: {{ $component }}
          image: {{ include "k2think.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: {{- toYaml .command | nindent 12 }}
          {{- include "k2think.environment" (dict "root" $root "role" $role) | nindent 10 }}
          {{- if $gateway }}
          ports:
            - name: http
              containerPort: 8400
          {{- include "k2think.gatewayProbes" $root | nindent 10 }}
          lifecycle:
            preStop:
              # Until those who send requests know that this pod is going.
              exec:
                command: ["sleep", "5"]
          {{- else }}
          {{- include "k2think.probes" $root | nindent 10 }}
          {{- end }}
          resources: {{- toYaml $role.resources | nindent 12 }}
          securityContext: {{- include "k2think.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - name: tmp
              mountPath: /tmp
            - name: data
              mountPath: /data
            {{- with $role.volumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {}
        - name: data
          {{- if $gateway }}
          persistentVolumeClaim:
            claimName: {{ default (printf "%s-files" (include "k2think.name" $root)) $root.Values.gateway.files.existingClaim }}
          {{- else }}
          # Nothing that counts is kept in a worker.
          emptyDir: {}
          {{- end }}
        {{- with $role.volumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $role.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $role.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $role.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $role.topologySpreadConstraints }}
      topologySpreadConstraints: {{- toYaml . | nindent 8 }}
      {{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels: {{- include "k2think.labels" $labels | nindent 4 }}
spec:
  maxUnavailable: {{ $role.maxUnavailable }}
  selector:
    matchLabels: {{- include "k2think.selector" $labels | nindent 6 }}
{{- if $scaled }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ $name }}
  labels: {{- include "k2think.labels" $labels | nindent 4 }}
spec:
  scaleTargetRef:
    name: {{ $name }}
  pollingInterval: {{ $root.Values.keda.pollingInterval }}
  minReplicaCount: {{ $role.autoscaling.minReplicas }}
  maxReplicaCount: {{ $role.autoscaling.maxReplicas }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleUp:
          stabilizationWindowSeconds: 0
        scaleDown:
          stabilizationWindowSeconds: {{ $root.Values.keda.scaleDownSeconds }}
  triggers:
    - type: prometheus
      # Value, not the average over pods: the metric is a ratio already, and pods are multiplied by it.
      metricType: Value
      metadata:
        serverAddress: {{ required "keda.serverAddress: which Prometheus scrapes a gateway?" $root.Values.keda.serverAddress }}
        # Work and no worker is +Inf, which an autoscaler cannot multiply by.
        query: clamp_max(max({{ .load }}), 10)
        threshold: {{ $role.autoscaling.load | quote }}
        ignoreNullValues: "false"
      {{- with $root.Values.keda.authentication }}
      authenticationRef:
        name: {{ . }}
      {{- end }}
{{- end }}
{{- end }}
