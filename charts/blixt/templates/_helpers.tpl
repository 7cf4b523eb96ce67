{{- /* Labels of an object: (dict "root" $ "component" "operator"). */}}
{{- define "blixt.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimAll "-_." }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | replace "+" "_" | trunc 63 | trimAll "-_." | quote }}
{{ include "blixt.selector" . }}
{{- end }}

{{- /* Labels that select the pods of a component. */}}
{{- define "blixt.selector" -}}
app.kubernetes.io/name: blixt
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* Labels that the operator gives the pods of agents. */}}
{{- define "blixt.agents" -}}
app.kubernetes.io/name: blixt
app.kubernetes.io/component: agent
{{- end }}

{{- /* The image of the operator and the agents. */}}
{{- define "blixt.image" -}}
{{- $repository := required "image.repository: this chart is of the source, which names no images: install the chart of a release, or push images of your own with make images REGISTRY=…, which prints what to set" .Values.image.repository }}
{{- if .Values.image.digest -}}
{{ include "blixt.mirrored" (dict "root" . "image" (printf "%s@%s" $repository .Values.image.digest)) }}
{{- else -}}
{{ include "blixt.mirrored" (dict "root" . "image" (printf "%s:%s" $repository (required "image.digest: name the image by digest (or by image.tag)" .Values.image.tag))) }}
{{- end }}
{{- end }}

{{- /* An image as the mirror has it, if there is one: (dict "root" $ "image" "quay.io/…"). As in
all references to images, what precedes the first slash is a registry if it looks like one. */}}
{{- define "blixt.mirrored" -}}
{{- $mirror := (.root.Values.global).imageRegistry }}
{{- if $mirror -}}
{{ $mirror }}/{{ regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" .image "" }}
{{- else -}}
{{ .image }}
{{- end }}
{{- end }}

{{- /* Security context of a pod that complies with Pod Security "restricted". */}}
{{- define "blixt.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "blixt.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
