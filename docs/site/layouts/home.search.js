{{- /* What docs.js searches: for each page its file, title and section of the menu, and its parts: anchor, heading, text. */ -}}
{{- $index := slice -}}
{{- range $s := partialCached "menu.html" . }}{{ range .entries -}}
  {{- $parts := slice -}}
  {{- range $i, $part := split (replaceRE `<h([1-6]) id=` "\x00<h$1 id=" .page.Content) "\x00" -}}
    {{- $head := index (findRESubmatch `(?s)^<h[1-6] id="([^"]*)">(.*?)(?:<a class="anchor".*?)?</h[1-6]>` $part 1) 0 -}}
    {{- $id := "" }}{{ $heading := "" }}{{ $text := $part -}}
    {{- with $head }}{{ $id = index . 1 }}{{ $heading = index . 2 | plainify | htmlUnescape }}{{ $text = strings.TrimPrefix (index . 0) $part }}{{ end -}}
    {{- $text = replaceRE `\s+` " " (replaceRE `</(p|li|td|th|tr|pre|div)>` " " $text | plainify | htmlUnescape) | strings.TrimSpace -}}
    {{- if or $heading $text }}{{ $parts = $parts | append (slice (dict "id" $id "heading" $heading "text" $text)) }}{{ end -}}
  {{- end -}}
  {{- $index = $index | append (slice (dict "page" (strings.TrimPrefix "/" .page.RelPermalink) "title" (partialCached "title.html" .page .page) "section" $s.name "parts" $parts)) -}}
{{- end }}{{ end -}}
window.blixtDocs = {{ $index | jsonify }};
