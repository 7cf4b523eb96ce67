{{- /* An image of bpfman: (dict "root" $ "image" "daemon"). */}}
{{- define "blixt.bpfmanImage" -}}
{{- $i := index .root.Values.bpfman.images .image }}
{{- $name := printf "%s:%s" $i.repository $i.tag }}
{{- if $i.digest }}{{ $name = printf "%s@%s" $name $i.digest }}{{ end }}
{{- include "blixt.mirrored" (dict "root" .root "image" $name) }}
{{- end }}

{{- /* The bpfman of somebody else, in words; "": there is none. Once this release has
       installed its own, what others install later does not remove it. */}}
{{- define "blixt.foreignBpfman" }}
{{- $operator := lookup "apps/v1" "Deployment" "bpfman" "bpfman-operator" }}
{{- if ne (include "blixt.isOurs" (dict "root" . "object" $operator)) "true" }}
{{- $kind := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "clusterbpfapplications.bpfman.io" }}
{{- $olm := "" }}
{{- if .Capabilities.APIVersions.Has "operators.coreos.com/v1alpha1/ClusterServiceVersion" }}
{{- range (lookup "operators.coreos.com/v1alpha1" "ClusterServiceVersion" "" "").items }}
{{- if and (not $olm) (hasPrefix "bpfman-operator.v" .metadata.name) }}{{ $olm = printf "ClusterServiceVersion %s/%s of OLM" .metadata.namespace .metadata.name }}{{ end }}
{{- end }}
{{- end }}
{{- if $olm }}{{ $olm }}
{{- else if $operator }}Deployment bpfman/bpfman-operator, which is not of this release
{{- else if and $kind (not (dig "metadata" "annotations" "blixt.x-k8s.io/chart" "" $kind)) }}CustomResourceDefinition clusterbpfapplications.bpfman.io, which is not of Blixt's chart
{{- end }}
{{- end }}
{{- end }}

{{- /* "true" if bpfman is a part of this release. */}}
{{- define "blixt.installsBpfman" }}
{{- if and .Values.bpfman.enabled (not (include "blixt.foreignBpfman" .)) -}}
true
{{- end }}
{{- end }}

{{- /* "true" if this upgrade takes away the bpfman of this release. */}}
{{- define "blixt.removesBpfman" }}
{{- if not .Values.bpfman.enabled }}
{{- include "blixt.isOurs" (dict "root" . "object" (lookup "apps/v1" "Deployment" "bpfman" "bpfman-operator")) }}
{{- end }}
{{- end }}
