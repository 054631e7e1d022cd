{{/* The name of all objects: the release's name, followed by the chart's name unless it already contains that. */}}
{{- define "doherty.name" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "doherty.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "doherty.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* An image, given as the values of the image and the name of the engine. */}}
{{- define "doherty.image" -}}
{{- $image := index . 0 -}}
{{- $image.repository -}}{{- if $image.digest -}}@{{ $image.digest }}{{- else -}}:{{ $image.tag | default (index . 1) }}{{- end -}}
{{- end -}}

{{- define "doherty.claim" -}}
{{- .Values.cache.existingClaim | default (.Values.cache.create | ternary (printf "%s-cache" (include "doherty.name" .)) "") -}}
{{- end -}}

{{- define "doherty.engine" -}}
{{- eq .Values.engine "cpu" | ternary "llamacpp" .Values.engine -}}
{{- end -}}

{{/* A value in the form of a flag; numbers above a million are not written with an exponent. */}}
{{- define "doherty.scalar" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) -}}{{ printf "%.0f" . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* The common parts of the pods of the server and the Job: privileges, and where they run. */}}
{{- define "doherty.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- $gpu := dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule" }}
{{- with eq .Values.engine "cpu" | ternary .Values.tolerations (append .Values.tolerations $gpu) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The common parts of their containers. */}}
{{- define "doherty.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: { drop: [ALL] }
  # The libraries of the GPU engines write files into their own folders.
  readOnlyRootFilesystem: {{ eq .Values.engine "cpu" }}
resources:
  {{- $resources := dict "requests" (dict "cpu" "2" "memory" "2Gi") "limits" (dict "memory" "4Gi") }}
  {{- if ne .Values.engine "cpu" }}
  {{- $resources = dict "requests" (dict "cpu" "8" "memory" "32Gi") }}
  {{- end }}
  {{- $resources = .Values.resources | default $resources | deepCopy }}
  {{- if ne .Values.engine "cpu" }}
  {{- $resources = mergeOverwrite $resources (dict "limits" (dict "nvidia.com/gpu" .Values.gpus)) }}
  {{- end }}
  {{- toYaml $resources | nindent 2 }}
{{- end -}}

{{- define "doherty.mounts" -}}
- { name: tmp, mountPath: /tmp }
- { name: cache, mountPath: /cache }
{{- if ne .Values.engine "cpu" }}
- { name: shm, mountPath: /dev/shm }
{{- end }}
{{- end -}}

{{- define "doherty.volumes" -}}
- name: tmp
  emptyDir: {}
- name: cache
  {{- with include "doherty.claim" . }}
  persistentVolumeClaim: { claimName: {{ . }} }
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- if ne .Values.engine "cpu" }}
- name: shm
  emptyDir: { medium: Memory, sizeLimit: {{ .Values.sharedMemory }} }
{{- end }}
{{- end -}}
