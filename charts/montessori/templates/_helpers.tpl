{{- define "montessori.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of everything. app.kubernetes.io/managed-by=montessori is the controller's own, on Jobs and their pods. */}}
{{- define "montessori.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/part-of: montessori
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* What selects one component's pods: (list . "controller") */}}
{{- define "montessori.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: montessori-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end -}}

{{/* Labels of one component's pods, without the chart's version: a new one alone restarts no pod. */}}
{{- define "montessori.podLabels" -}}
{{ include "montessori.selector" . }}
app.kubernetes.io/part-of: montessori
{{- end -}}

{{/* An image with digest or tag: (list . .Values.stages.image) */}}
{{- define "montessori.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "montessori.storeUri" -}}
{{- if .Values.store.uri -}}
{{ .Values.store.uri }}
{{- else if .Values.minio.enabled -}}
s3://{{ .Values.minio.bucket }}/store
{{- else -}}
{{- fail "store.uri is missing: give s3://BUCKET/PREFIX, or minio.enabled=true for a MinIO in this namespace" -}}
{{- end -}}
{{- end -}}

{{/* The Secret whose keys become the pods' environment: yours, or one with what the values say. */}}
{{- define "montessori.storeSecret" -}}
{{- .Values.store.existingSecret | default (printf "%s-store" (include "montessori.fullname" .)) -}}
{{- end -}}

{{- define "montessori.stagesServiceAccount" -}}
{{- if .Values.stages.serviceAccount.create -}}
{{ .Values.stages.serviceAccount.name | default (printf "%s-stages" (include "montessori.fullname" .)) }}
{{- else -}}
{{ .Values.stages.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* The restricted Pod Security standard, and a read-only root. */}}
{{- define "montessori.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "montessori.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "montessori.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Egress that every pod has: DNS. */}}
{{- define "montessori.egressDns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  to:
    - namespaceSelector: {}
{{- end -}}

{{/* Egress to the store: MinIO's pod, or networks outside. */}}
{{- define "montessori.egressStore" -}}
{{- if .Values.minio.enabled }}
- to:
    - podSelector:
        matchLabels:
          {{- include "montessori.selector" (list . "minio") | nindent 10 }}
  ports:
    - {port: 9000, protocol: TCP}
{{- end }}
{{- if .Values.networkPolicies.storeCidrs }}
- to:
    {{- range .Values.networkPolicies.storeCidrs }}
    - ipBlock:
        cidr: {{ . }}
        {{- if eq . "0.0.0.0/0" }}
        {{- with $.Values.networkPolicies.storeExcept }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- end }}
    {{- end }}
  ports:
    {{- range .Values.networkPolicies.storePorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end -}}
