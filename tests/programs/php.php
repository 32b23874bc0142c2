<?php
// Its extensions are loaded so that they prefer the C library's names to the program's. USE_ZEND_ALLOC=0 sends every
// request to malloc.
foreach (get_loaded_extensions() as $name) {
    $reflection = new ReflectionExtension($name);
    $count[$name] = count($reflection->getFunctions());
}
ksort($count);
echo md5(json_encode($count)), "\n";
$table = [];
for ($i = 0; $i < 50000; $i++) {
    $table["key" . $i % 900][] = "value $i";
}
ksort($table);
echo md5(json_encode($table)), "\n";
$text = str_repeat("hello world ", 20000);
echo preg_match_all('/w\w+/', $text, $matches), " ", count($matches[0]), "\n";
for ($i = 0; $i < 200; $i++) {
    $blocks[] = str_repeat(chr($i), 5000 + $i * 1000);
    if ($i % 3 == 0) {
        array_shift($blocks);
    }
}
echo strlen(implode($blocks)), "\n";
echo "finished\n";
