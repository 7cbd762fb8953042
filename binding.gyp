{
  "variables": {
    # Set by scripts/build-native.mjs, which looks for it.
    "liburing%": "no"
  },
  "targets": [
    {
      "target_name": "ankole",
      "sources": [
        "native/napi/addon.cc",
        # All else, which native/Makefile compiles.
        "<(module_root_dir)/native/build/release/core.o"
      ],
      "include_dirs": [
        "native",
        "<!(node -p \"require('node-addon-api').include_dir\")"
      ],
      "defines": [
        "NAPI_VERSION=8",
        "NODE_ADDON_API_DISABLE_DEPRECATED",
        "NAPI_DISABLE_CPP_EXCEPTIONS",
        "ANKOLE_VERSION=\"<!(node -p \"require('./package.json').version\")\""
      ],
      "cflags": [
        "-Wall",
        "-Wextra",
        "-Wno-cast-function-type",
        # False alarms of gcc 12 about std::string at -O3.
        "-Wno-restrict",
        "-fvisibility=hidden"
      ],
      "cflags_cc!": [
        "-std=gnu++17",
        "-std=gnu++20"
      ],
      "cflags_cc": [
        "-std=c++20",
        "-fno-exceptions",
        "-fno-rtti"
      ],
      "ldflags": [
        "-Wl,-z,nodelete",
        "-Wl,--exclude-libs,ALL"
      ],
      "conditions": [
        [
          "liburing=='yes'",
          {
            "defines": [
              "ANKOLE_HAVE_LIBURING=1"
            ],
            "libraries": [
              "-l:liburing.a"
            ]
          }
        ]
      ]
    }
  ]
}
